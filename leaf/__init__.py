"""From a messy set of leaf photographs to an honest healthy/unhealthy classifier."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leaf.serving.classifier import load

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import `load` when it is first used: it brings Keras along, which takes seconds."""
    if name == "load":
        from leaf.serving.classifier import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
