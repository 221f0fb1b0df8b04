"""From a messy set of leaf photographs to an honest healthy/unhealthy classifier."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leaf.python_api import fit
    from leaf.serve.classifier import load

__version__ = "0.1.0"
__all__ = ["fit", "load"]
_FROM = {"fit": "leaf.python_api", "load": "leaf.serve.classifier"}


def __getattr__(name: str) -> Any:
    """Import `fit` or `load` when it is first used: what they bring along takes longer than the rest."""
    if name in _FROM:
        return getattr(importlib.import_module(_FROM[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
