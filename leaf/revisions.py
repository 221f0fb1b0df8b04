"""Any file of the pipeline as it is at a git revision, in a DVC experiment or in the workspace."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from leaf.errors import LeafError
from leaf.store import parse_yaml

WORKSPACE = "workspace"
PREDICTIONS = "data/scored/predictions.csv"


def reader(revision: str) -> Callable[[str], str]:
    """A function that reads a text file as it is at the revision."""
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.scm import RevError

    files: Any = None

    def read(path: str) -> str:
        nonlocal files
        try:
            if revision == WORKSPACE:
                return Path(path).read_text(encoding="utf-8")
            files = files or DVCFileSystem(rev=revision)  # opens the revision at the first read
            return files.read_text(path, encoding="utf-8")
        except RevError:
            raise LeafError(f"{revision}: no such revision or experiment; `dvc exp show` lists them") from None
        except (FileNotFoundError, DvcException):
            raise LeafError(
                f"{revision}: no {path} there; run the pipeline at that revision, or `dvc pull` it"
            ) from None

    return read


def parameters(read: Callable[[str], str]) -> dict[str, Any]:
    """params.yaml as `read` (from `reader`) finds it."""
    return parse_yaml(read("params.yaml"), "params.yaml") or {}


def table(read: Callable[[str], str], path: str) -> pd.DataFrame:
    """A table as `read` (from `reader`) finds it; sources and hashes are text."""
    return pd.read_csv(io.StringIO(read(path)), dtype={"source": str, "hash": str}, keep_default_na=False)
