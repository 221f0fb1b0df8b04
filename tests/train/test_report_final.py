"""Test the course report's final model: one update of ConvNeXtLarge in micro-batches, with 90 frozen operations."""

import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest

from leaf.experiments import experiment, with_settings
from leaf.models.build import build_model_from_params
from leaf.models.freezing import backbone_operations, freeze_backbone
from leaf.models.saving import save_model
from leaf.models.summary import summarize_model
from leaf.train.dataset import Dataset
from leaf.train.reproducibility import fix_seeds
from leaf.train.trainer import ClassifierTraining, run_training

ROOT = Path(__file__).parents[2]
MEMORY = 8 * 2**20  # KiB: weights, gradients, Adam's two moments, best weights, and the activations of 8 images

LOADED = """
import sys
import numpy as np
from leaf.models.build import build_model_from_params
from leaf.models.freezing import backbone_operations, freeze_backbone
from leaf.models.saving import load_model, save_model
from leaf.models.summary import summarize_model
np.save(sys.argv[3], load_model(sys.argv[1]).predict_on_batch(np.load(sys.argv[2])))
"""


@pytest.mark.full
@pytest.mark.slow
def test_an_update_changes_all_but_the_first_90_operations(tmp_path):
    row = experiment("report_final", ROOT / "experiments.yaml").set
    small = {"weights": "random", "batch_size": 16, "micro_batch": 8, "epochs": 1}
    params = with_settings({}, {**row, **small})
    fix_seeds(params.seed)
    model = build_model_from_params(params, 2)
    before = [np.array(weight) for weight in model.weights]
    images = np.random.default_rng(0).integers(0, 256, (18, 96, 96, 3), np.uint8)
    dataset = Dataset(images, np.arange(16), np.arange(16) % 2)
    validation = Dataset(images, np.arange(16, 18), np.arange(2))
    training = ClassifierTraining(model, dataset, validation, params, partial(freeze_backbone, model))
    result = run_training(training, quiet=True)
    assert result.steps_per_epoch == 1

    frozen = {
        id(weight) for operation in backbone_operations(model)[:90] for weight in getattr(operation, "weights", ())
    }
    trainable = {id(weight) for weight in model.trainable_weights}
    moved = {id(w): not np.array_equal(old, w) for w, old in zip(model.weights, before, strict=True)}
    assert frozen
    assert not any(moved[each] for each in frozen)
    unchanged = [weight.path for weight in model.weights if id(weight) in trainable and not moved[id(weight)]]
    assert unchanged == []
    table = summarize_model(model)
    assert (table.total, table.trainable, table.non_trainable) == (196_239_554, 166_411_010, 29_828_544)

    file, inputs, outputs = (tmp_path / name for name in ("model.keras", "images.npy", "logits.npy"))
    save_model(model, file)
    np.save(inputs, images[:4].astype(np.float32))
    expected = model.predict_on_batch(np.load(inputs))
    del model, before
    keras.backend.clear_session()
    subprocess.run([sys.executable, "-c", LOADED, file, inputs, outputs], check=True, cwd=ROOT)
    np.testing.assert_allclose(np.load(outputs), expected, atol=1e-5)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < MEMORY
