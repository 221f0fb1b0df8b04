"""Export a trained model: Keras, SavedModel, LiteRT, CodaLab, and a web app for phones."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leaf.errors import LeafError


@contextmanager
def replacing_folder(path: str | Path, mark: str) -> Iterator[Path]:
    """Yield a temporary folder and rename it to `path` on success.

    Raises:
        LeafError: if `path` exists and does not contain the file `mark` of an earlier export.
    """
    path = Path(path)
    if path.exists() and not (path / mark).is_file():
        raise LeafError(f"{path}: exists and is not an earlier export. Use another path or remove it.")
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
