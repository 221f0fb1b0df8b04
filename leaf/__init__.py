"""A reproducible image-classification pipeline with honest metrics."""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leaf.python_api import fit
    from leaf.serve.classifier import load

    __version__: str

__all__ = ["fit", "load"]
_FROM = {"fit": "leaf.python_api", "load": "leaf.serve.classifier"}


def __getattr__(name: str) -> Any:
    """Import `fit` or `load`, or look up the version, on first use, to keep `import leaf` fast."""
    if name in _FROM:
        return getattr(importlib.import_module(_FROM[name]), name)
    if name == "__version__":
        try:
            return importlib.metadata.version("leaf-dvc")
        except importlib.metadata.PackageNotFoundError:  # a checkout on PYTHONPATH
            return "0+unknown"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
