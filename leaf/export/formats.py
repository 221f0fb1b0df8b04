"""Export a Keras model, with temperature scaling and softmax, to Keras, SavedModel, LiteRT or CodaLab."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras

from leaf.errors import LeafError
from leaf.export import savedmodel
from leaf.models.onnx_inference import Metadata, metadata
from leaf.models.saving import load_model, save_model
from leaf.serve.classifier import read_model_files


@dataclass(frozen=True)
class Format:
    """An export format.

    Attributes:
        name: default name of the file or folder next to the model.
        suffixes: accepted suffixes of the path; "" for a folder.
        write: function called with the model that outputs probabilities, its metadata, and the path.
        tensorflow: whether the format requires the TensorFlow backend.
    """

    name: str
    suffixes: tuple[str, ...]
    write: Callable[[keras.Model, Metadata, Path], None]
    tensorflow: bool = True


FORMATS = {
    "keras": Format("probabilities.keras", (".keras",), lambda model, _, path: save_model(model, path), False),
    "savedmodel": Format("savedmodel", ("",), lambda model, _, path: savedmodel.write(model, path)),
    "litert": Format("model.tflite", (".tflite",), savedmodel.write_litert),
    "codalab": Format(
        "codalab",
        ("", ".zip"),
        lambda model, metadata, path: savedmodel.write_codalab(model, metadata["threshold"], path, metadata["views"]),
    ),
}


def export(model: str | Path, form: str, to: Path | None = None) -> str:
    """Export a model that maps images, float32 (N, H, W, 3) in 0..255, to probabilities (N, C).

    Args:
        model: a `.keras` file saved by `train`.
        form: a name in `FORMATS`.
        to: file or folder to write; default: next to the model.

    Returns:
        A message that names the file, the classes, the threshold, and any difference from evaluation.

    Raises:
        LeafError: if the format is unknown, the path does not match it, or the model is missing or was changed.
    """
    if form not in FORMATS:
        raise LeafError(f"format: {form!r}; valid: web, {', '.join(FORMATS)}; `dvc repro` writes models/model.onnx")
    chosen, model = FORMATS[form], Path(model)
    path = to or model.with_name(chosen.name)
    if path.suffix not in chosen.suffixes:
        raise LeafError(f"{path}: not valid for {form}; valid: a {' or '.join(s or 'folder' for s in chosen.suffixes)}")
    if path.resolve() == model.resolve():
        raise LeafError(f"{path}: would overwrite the model. Use another path.")
    if chosen.tensorflow and keras.backend.backend() != "tensorflow":
        raise LeafError(f"KERAS_BACKEND: {keras.backend.backend()}; valid for {form}: tensorflow")
    beside = read_model_files(model)
    whole = with_probabilities(load_model(model, beside.sha256), beside.temperature)
    facts = vars(beside) | {"model_sha256": beside.sha256, "image_size": whole.input_shape[1]}
    chosen.write(whole, metadata(facts), path)
    rule = f"threshold {beside.threshold:g}" if len(beside.classes) == 2 else "predict the most likely class"
    lines = [f"{path}: class probabilities of {', '.join(beside.classes)}; {rule}"]
    if beside.views > 1 and form != "codalab":
        lines.append(f"It predicts a single view; evaluation averages {beside.views} views (test-time augmentation).")
    return "\n".join(lines)


def with_probabilities(model: keras.Model, temperature: float = 1.0) -> keras.Model:
    """Append temperature scaling and softmax to a model.

    Args:
        model: maps images, float32 (N, H, W, 3) in 0..255, to logits (N, C).
        temperature: divides the logits (Guo 2017, arXiv 1706.04599).

    Returns:
        A model that maps the same input to probabilities, float32 (N, C), and shares the weights.
    """
    logits = model.outputs[0]
    scaled = keras.layers.Rescaling(1 / temperature, dtype="float32", name="temperature")(logits)
    probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(scaled)
    return keras.Model(model.inputs[0], probabilities, name=model.name)
