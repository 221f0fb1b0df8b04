"""Write a network as an ONNX file."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from leaf.exporting.savedmodel import Metadata
from leaf.store import replacing

OPSET = 18


def write(model: keras.Model, metadata: Metadata, path: str | Path) -> None:
    """Write `model` to `path` as ONNX: input `images`, output `probabilities`, any number of images.

    The file's metadata holds each entry of `metadata` as JSON, `classes` among them.

    tf2onnx leaves two things that onnxruntime cannot run, and both are put right here: TensorFlow's `Erfc` (in the
    exact GELU), an operator that ONNX lacks; and constants that a layer holds as plain tensors (Normalization's
    mean), which would become further inputs.
    """
    import onnx
    import tensorflow as tf
    import tf2onnx

    shape = (None, *model.inputs[0].shape[1:])
    function = tf.function(
        lambda images: {"probabilities": model(images, training=False)},
        input_signature=[tf.TensorSpec(shape, tf.float32, name="images")],
    )
    concrete = function.get_concrete_function()
    with _sound_optimizers(model):
        converted, _ = tf2onnx.convert.from_function(
            function, input_signature=function.input_signature, opset=OPSET, custom_op_handlers={"Erfc": (_erfc, [])}
        )
    constants = {
        tensor.name: value
        for tensor, value in zip(concrete.inputs[1:], concrete.captured_inputs, strict=True)
        if value.dtype != tf.resource
    }
    _bind(converted.graph, {name: value.numpy() for name, value in constants.items()})
    onnx.helper.set_model_props(converted, {name: json.dumps(value) for name, value in metadata.items()})
    onnx.checker.check_model(converted)
    with replacing(path) as partial:
        partial.write_bytes(converted.SerializeToString())


@contextmanager
def _sound_optimizers(model: keras.Model) -> Iterator[None]:
    """Leave out tf2onnx's optimizer of transposes where a map is a single pixel (ConvNeXt below 64 pixels).

    There it takes a transpose for a reshape and then averages over another axis: other probabilities, and no error.
    """
    from tf2onnx.optimizer import _optimizers as optimizers

    every = dict(optimizers)
    shapes = [getattr(tensor, "shape", ()) for node in model.operations for tensor in keras.tree.flatten(node.output)]
    if any(len(shape) == 4 and tuple(shape[1:3]) == (1, 1) for shape in shapes):
        del optimizers["optimize_transpose"]
    try:
        yield
    finally:
        optimizers.clear()
        optimizers.update(every)


def _erfc(context: Any, node: Any, name: str, _: Any) -> None:
    """Write the complementary error function as 1 - erf."""
    shape, dtype = context.get_shape(node.output[0]), context.get_dtype(node.output[0])
    source, target = node.input[0], node.output[0]
    context.remove_node(node.name)
    erf = context.make_node("Erf", [source], shapes=[shape], dtypes=[dtype])
    one = context.make_const(f"{name}_one", np.ones((), np.float32))
    context.make_node("Sub", [one.output[0], erf.output[0]], outputs=[target], shapes=[shape], dtypes=[dtype])


def _bind(graph: Any, constants: dict[str, np.ndarray]) -> None:
    """Turn the inputs that `constants` names into constants of the graph, unread ones left out; call the batch N."""
    from onnx import numpy_helper

    read = {name for node in graph.node for name in node.input}
    for entry in [entry for entry in graph.input if entry.name in constants]:
        graph.input.remove(entry)
        if entry.name in read:
            graph.initializer.append(numpy_helper.from_array(constants[entry.name], entry.name))
    for entry in (*graph.input, *graph.output):
        entry.type.tensor_type.shape.dim[0].dim_param = "N"  # tf2onnx numbers it anew each time
