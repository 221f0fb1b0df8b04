"""Read files of the pipeline at a git revision, in a DVC experiment or in the workspace."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leaf.errors import LeafError
from leaf.store import parse_yaml

WORKSPACE = "workspace"
PREDICTIONS = "data/scored/predictions.csv"
PROBABILITIES = "data/scored/probabilities.npy"
Read = Callable[[str], bytes]


def reader(revision: str) -> Read:
    """Return a function that reads a file at `revision`. Only revisions other than the workspace need DVC."""
    if revision == WORKSPACE:
        return _read_workspace
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.scm import RevError

    files: Any = None
    unknown = LeafError(f"{revision}: no such revision or experiment. `dvc exp show` lists them")
    if not revision or ":" in revision or len(revision) > 1000:  # REV:PATH names a file in git, not a commit
        raise unknown

    def read(path: str) -> bytes:
        nonlocal files
        try:
            files = files or DVCFileSystem(rev=revision)  # opened at the first read
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
    return LeafError(f"{revision}: no {path} there. Run the pipeline at that revision, or `dvc pull` it")


def parameters(read: Read) -> dict[str, Any]:
    """Return params.yaml."""
    return parse_yaml(read("params.yaml").decode(), "params.yaml") or {}


def table(read: Read, path: str) -> pd.DataFrame:
    """Return a table; sources and hashes are text."""
    return pd.read_csv(
        io.BytesIO(read(path)), dtype={"source": str, "hash": str, "file_hash": str}, keep_default_na=False
    )


def probabilities(read: Read) -> np.ndarray:
    """Return the probabilities, float32 (N, C), in the order of predictions.csv."""
    return np.load(io.BytesIO(read(PROBABILITIES)), allow_pickle=False)


def class_names(read: Read) -> list[str]:
    """Return the class names in label order."""
    names = pd.read_csv(io.BytesIO(read("data/ingested/classes.csv")), dtype={"name": str}, keep_default_na=False)
    return names.sort_values("label")["name"].tolist()
