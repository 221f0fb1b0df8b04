"""Read pipeline files at a git revision, in a DVC experiment or in the workspace."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leaf.errors import LeafError
from leaf.store import parse_yaml, read_table

if TYPE_CHECKING:
    import pandas as pd

WORKSPACE = "workspace"
PREDICTIONS = "data/scored/predictions.csv"
PROBABILITIES = "data/scored/probabilities.npy"
Read = Callable[[str], bytes]


def reader(revision: str) -> Read:
    """Return a function that reads a file at `revision`. For the workspace, DVC is not required."""
    if revision == WORKSPACE:
        return _read_workspace
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.scm import RevError

    files: Any = None
    unknown = LeafError(f"{revision}: no such revision or experiment. List them with `dvc exp show`.")
    # REV:PATH is a file in git, not a commit. git and DVC raise an exception for names that are not UTF-8.
    if not revision.isprintable() or not revision or ":" in revision or len(revision) > 1000:
        raise unknown

    def read(path: str) -> bytes:
        nonlocal files
        try:
            files = files or DVCFileSystem(rev=revision)  # opened on first use
            return files.read_bytes(path)
        except (RevError, AttributeError):  # AttributeError: a tree, not a commit
            raise unknown from None
        except (FileNotFoundError, DvcException):
            raise _missing(revision, path) from None

    return read


def _read_workspace(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise _missing(WORKSPACE, path) from None


def _missing(revision: str, path: str) -> LeafError:
    return LeafError(f"{revision}: {path} not found. Run the pipeline at that revision, or run `dvc pull`.")


def parameters(read: Read) -> dict[str, Any]:
    """Return the contents of params.yaml. Raises LeafError if it is not a mapping."""
    values = parse_yaml(read("params.yaml").decode(errors="surrogateescape"), "params.yaml") or {}
    if not isinstance(values, dict):
        raise LeafError("params.yaml: not a mapping. Correct it, or use another revision.")
    return values


_COLUMNS = {
    PREDICTIONS: ("image", "split", "label", "predicted"),
    "data/ingested/index.csv": ("image", "source", "hash", "file_hash"),
    "data/cleaned/decisions.csv": ("image", "group"),
    "data/split/splits.csv": ("image", "split"),
}


def table(read: Read, path: str) -> "pd.DataFrame":
    """Return a table with one row per image, with text hashes. Raises LeafError if it is damaged."""
    found = read_table(path, _COLUMNS[path], ("source", "split", "hash", "file_hash"), read(path))
    if found["image"].duplicated().any():
        raise LeafError(f"{path}: an image appears twice. Run `dvc repro` or `dvc checkout`.")
    return found


def probabilities(read: Read) -> np.ndarray:
    """Return float32 probabilities (N, C) in the order of predictions.csv. Raises LeafError if the file is damaged."""
    try:
        found = np.load(io.BytesIO(read(PROBABILITIES)), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise LeafError(f"{PROBABILITIES}: damaged ({error}). Run `dvc repro` or `dvc checkout`.") from None
    if found.ndim != 2 or len(found) != len(table(read, PREDICTIONS)):
        raise LeafError(f"{PROBABILITIES}: shape {found.shape} does not match {PREDICTIONS}. Run `dvc repro`.")
    return found


def class_names(read: Read) -> list[str]:
    """Return the class names in label order. Raises LeafError if the table is damaged."""
    path = "data/ingested/classes.csv"
    return read_table(path, ("label", "name"), ("name",), read(path)).sort_values("label")["name"].tolist()
