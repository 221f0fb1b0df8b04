"""The alternatives to DepthwiseConv2D in benchmarks/depthwise.py have the same outputs and gradients."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DIFFERENCES = """
import json, sys
import jax, keras, numpy as np
from depthwise import KINDS, with_depthwise
dtype = sys.argv[1]
random = np.random.default_rng(0)
images = random.normal(size=(2, 9, 11, 6)).astype(np.float32)
upstream = random.normal(size=images.shape).astype(np.float32)
image = keras.Input(images.shape[1:])
model = keras.Model(image, keras.layers.DepthwiseConv2D(7, padding="same", dtype=dtype)(image))
model.set_weights([random.normal(size=weight.shape) for weight in model.weights])
results = {}
for kind in KINDS:
    alternative = with_depthwise(model, kind)
    assert type(alternative.layers[-1]) is KINDS[kind]
    def product(weights, images):
        outputs = alternative.stateless_call(weights, [], images)[0]
        return (outputs.astype("float32") * upstream).sum(), outputs
    weights = [weight.value for weight in alternative.weights]
    gradients, outputs = jax.grad(product, (0, 1), has_aux=True)(weights, images)
    results[kind] = [np.asarray(each, np.float32) for each in jax.tree.leaves([outputs, gradients])]
print(json.dumps({
    kind: max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(each, results["nhwc"], strict=True))
    for kind, each in results.items()
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("mixed_bfloat16", 0.02)])
def test_outputs_and_gradients_equal_those_of_depthwise_conv2d(dtype, tolerance):
    pytest.importorskip("jax")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT / "benchmarks")}
    command = [sys.executable, "-c", DIFFERENCES, dtype]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    differences = json.loads(done.stdout)
    assert differences.keys() == {"nhwc", "shifted", "nchw"}
    assert max(differences.values()) < tolerance
