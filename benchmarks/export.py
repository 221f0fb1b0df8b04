"""Compare the probabilities and the speed of each export format, in its own runtime, with Keras.

Run this script in a project after `dvc repro`. The images are the first 64 of the test split. The speed of a format is
the ratio of Keras's median time to its own in alternating runs, for one image and for a batch of all 64. The CodaLab
bundle is listed but not measured.
"""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import alternate
from runs import keep_table, table_parser

from leaf.export.formats import FORMATS, export, with_probabilities
from leaf.models.saving import load_model
from leaf.serve.classifier import read_model_files
from leaf.store import read_array, read_table

Ask = Callable[[np.ndarray], np.ndarray]


def savedmodel(path: Path) -> Ask:
    """Return a function that runs the SavedModel in TensorFlow, without Keras."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return lambda images: loaded.serve(images).numpy()


def onnx(path: Path) -> Ask:
    """Return a function that runs ONNX Runtime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["probabilities"], {"images": images})[0]


def litert(path: Path) -> Ask:
    """Return a function that runs LiteRT's interpreter with two threads."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=2)
    place, result = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    shape: list[tuple[int, ...]] = [()]

    def ask(images: np.ndarray) -> np.ndarray:
        if images.shape != shape[0]:
            interpreter.resize_tensor_input(place, images.shape)
            interpreter.allocate_tensors()
            shape[0] = images.shape
        interpreter.set_tensor(place, images)
        interpreter.invoke()
        return interpreter.get_tensor(result)

    return ask


RUNTIMES: dict[str, Callable[[Path], Ask]] = {"savedmodel": savedmodel, "onnx": onnx, "litert": litert}


def main() -> None:
    parser = table_parser(__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/model.keras"))
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    splits = read_table("data/split/splits.csv", ["image", "split"])
    rows = splits.loc[splits["split"] == "test", "image"].to_numpy()[:64]
    images = read_array("data/ingested/images.npy")[rows].astype(np.float32)
    beside = read_model_files(options.model)
    keras_model = with_probabilities(load_model(options.model, beside.sha256), beside.temperature)
    expected = keras_model.predict_on_batch(images)
    rows = [["keras", "`models/probabilities.keras`", "0", "", ""]]
    with tempfile.TemporaryDirectory() as folder:
        for form, runtime in RUNTIMES.items():
            path = options.model.with_suffix(".onnx")  # written by `evaluate`
            if form != "onnx":
                path = Path(folder) / FORMATS[form].name
                export(options.model, form, path)
            ask = runtime(path)
            speeds = []
            for batch in (images[:1], images):
                ours, other = alternate(
                    lambda ask=ask, batch=batch: ask(batch),
                    lambda batch=batch: keras_model.predict_on_batch(batch),
                    options.repeats,
                )
                speeds.append(f"{statistics.median(other) / statistics.median(ours):.2f}×")
            difference = np.abs(ask(images) - expected).max()
            rows.append([form, f"`models/{path.name}`", f"{difference:.1e}" if difference else "0", *speeds])
    rows.append(["codalab", "`models/codalab/`, or a `.zip`", "same labels", "", ""])
    keep_table("export", ["format", "written to", "largest difference", "one image", "64 images"], rows, options.record)


if __name__ == "__main__":
    main()
