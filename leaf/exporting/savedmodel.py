"""Write a network as TensorFlow's SavedModel, a folder that runs without Keras and without this package."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras

from leaf.errors import LeafError


def write(model: keras.Model, path: str | Path) -> None:
    """Write `model` to the folder `path`: signature `serve`, any number of images."""
    with replacing_folder(path, "saved_model.pb") as partial:
        model.export(partial, format="tf_saved_model", verbose=False)


@contextmanager
def replacing_folder(path: str | Path, mark: str) -> Iterator[Path]:
    """Give a temporary folder beside `path`, which takes the name `path` on success.

    Raises:
        LeafError: where `path` stands and is no earlier export, that is a folder with a file `mark`.
    """
    path = Path(path)
    if path.exists() and not (path / mark).is_file():
        raise LeafError(f"{path}: stands already and is no earlier export; give another path or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            shutil.rmtree(path)
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
