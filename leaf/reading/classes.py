"""Which class each name that a data set uses belongs to: the names themselves, a list of them, or patterns."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np

from leaf.errors import LeafError

Wanted = Literal["auto"] | Sequence[str] | Mapping[str, Sequence[str]]

_SHOWN = 6  # names in an error


def resolve(
    found: Sequence[str | int], sources: Sequence[str], wanted: Wanted, ignore: Sequence[str], dataset: object
) -> tuple[list[str], np.ndarray]:
    """The class names in label order, and the label of each image, int64 (N,).

    Args:
        found: what the data set calls the class of each image; a whole number (in an .npz) is a label of a list.
        sources: the images' names, for errors.
        wanted: `auto` for the names as found, sorted, those of healthy leaves first; a list of all the names; or a
            mapping of class names to patterns (as of a shell, without regard to case), of which the first match wins.
        ignore: patterns of the names to leave out; their label is -1.
        dataset: its name, for errors.

    Raises:
        LeafError: for a name that is in no class (its `proposals` are values of `classes` that would do), and for a
            class without an image.
    """
    counts = Counter(found)
    ignored = {name for name in counts if _matches(str(name), ignore)}
    used = [name for name in counts if name not in ignored]
    if isinstance(wanted, Mapping):
        names = list(wanted)
        label = {name: _first_match(str(name), wanted) for name in used}
    else:
        names = _sorted(str(name) for name in used) if wanted == "auto" else list(wanted)
        place = {name: number for number, name in enumerate(names)}
        label = {name: place.get(str(name), name if isinstance(name, int) else -1) for name in used}
    foreign = [name for name in used if not 0 <= label[name] < len(names)]
    if foreign:
        named = [f"{name!r} ({counts[name]} images, first {sources[found.index(name)]})" for name in foreign]
        valid = _some(names) + (" by their patterns" if isinstance(wanted, Mapping) else "")
        raise LeafError(
            f"{dataset}: {_some(named, 3)}: no class; the key `classes` has {valid}", proposals=_proposals(used)
        )
    labels = np.array([label.get(name, -1) for name in found], np.int64)
    check_present(labels, names, dataset)
    return names, labels


def check_present(labels: np.ndarray, names: Sequence[str], dataset: object) -> None:
    """Raise LeafError unless there are two classes or more, each with an image."""
    if not (labels >= 0).any():
        raise LeafError(f"{dataset}: no image in it can be read")
    if len(names) < 2:
        raise LeafError(f"{dataset}: all images are of one class, {', '.join(map(repr, names))}; valid: two or more")
    for number, name in enumerate(names):
        if not (labels == number).any():
            raise LeafError(
                f"{dataset}: no image of the class {name}; valid: images of each of {_some(names)} (key `classes`)"
            )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name.casefold(), pattern.casefold()) for pattern in patterns)


def _first_match(name: str, wanted: Mapping[str, Sequence[str]]) -> int:
    return next((number for number, patterns in enumerate(wanted.values()) if _matches(name, patterns)), -1)


def _sorted(names: Iterable[str]) -> list[str]:
    """Sorted, numbers by their value; a name that is or ends in `healthy`, not `unhealthy`, comes first."""
    distinct = set(names)
    number = all(name.isdecimal() for name in distinct)
    return sorted(distinct, key=lambda name: (not _healthy(name), int(name) if number else 0, name))


def _healthy(name: str) -> bool:
    return _matches(name, ["*healthy"]) and not _matches(name, ["*unhealthy"])


def _proposals(used: Sequence[str | int]) -> list[dict[str, Any]]:
    """Settings that take these names in."""
    healthy = sum(_healthy(str(name)) for name in used)
    unhealthy = any(_matches(str(name), ["*unhealthy"]) for name in used)  # of which *healthy would take hold
    two = [{"classes": {"healthy": ["*healthy"], "unhealthy": ["*"]}}]
    return [{"classes": "auto"}, *(two if 0 < healthy < len(used) > 2 and not unhealthy else [])]


def _some(names: Sequence[str], most: int = _SHOWN) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
