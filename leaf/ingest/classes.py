"""Map the names of folders and tables to the classes of params.yaml."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from leaf.errors import LeafError

Wanted = Literal["auto"] | Sequence[str] | Mapping[str, Sequence[str]]

_SHOWN = 6  # names in an error
_LONGEST = 200  # characters of a class name, which appears in tables, pages and metric names


def resolve(
    found: Sequence[str | int], sources: Sequence[str], wanted: Wanted, ignore: Sequence[str], dataset: object
) -> tuple[list[str], np.ndarray]:
    """Return the class names in label order, and the label of each image, int64 (N,).

    Args:
        found: class name of each image; a whole number (in an .npz) is an index into a list of names.
        sources: names of the images, for errors.
        wanted: `auto` for the names found, sorted, healthy classes first; a list of all names; or a mapping of class
            names to shell patterns, ignoring case; the first match wins.
        ignore: patterns of names to leave out; their label is -1.
        dataset: name of the data set, for errors.

    Raises:
        LeafError: if a name belongs to no class (with `proposals` for `classes`), or a class has no images.
    """
    counts = Counter(found)
    for name in counts:
        if len(str(name)) > _LONGEST:
            raise LeafError(
                f"{dataset}: {sources[found.index(name)]}: its class name has {len(str(name))} characters; valid: up "
                f"to {_LONGEST}"
            )
    ignored = {name for name in counts if matches_any(str(name), ignore)}
    used = [name for name in counts if name not in ignored]
    if isinstance(wanted, Mapping):
        names = list(wanted)
        label = {name: _first_match(str(name), wanted) for name in used}
    else:
        names = sort_names(nfc(str(name)) for name in used) if wanted == "auto" else list(wanted)
        place = {nfc(name): number for number, name in enumerate(names)}
        label = {name: place.get(nfc(str(name)), name if isinstance(name, int) else -1) for name in used}
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


def check_present(
    labels: np.ndarray, names: Sequence[str], dataset: object, unreadable: Mapping[str, str] | None = None
) -> None:
    """Raise LeafError unless there are two classes or more, each with an image; `unreadable` maps files to reasons."""
    reasons = Counter((unreadable or {}).values()).most_common(3)
    why = f" ({'; '.join(f'{count} files: {reason}' for reason, count in reasons)})" if reasons else ""
    if not (labels >= 0).any():
        raise LeafError(f"{dataset}: no image in it can be read{why}")
    if len(names) < 2:
        raise LeafError(f"{dataset}: all images are of one class, {', '.join(map(repr, names))}; valid: two or more")
    for number, name in enumerate(names):
        if not (labels == number).any():
            raise LeafError(
                f"{dataset}: no image of the class {name}{why}; valid: images of each of {_some(names)} (key `classes`)"
            )


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(nfc(name).casefold(), nfc(pattern).casefold()) for pattern in patterns)


@lru_cache(maxsize=4096)
def nfc(text: str) -> str:
    """Normalize the name of a class or group: Unicode form NFC, single blanks inside, no invisible characters."""
    if not text.isascii():
        text = "".join(char for char in text if unicodedata.category(char) != "Cf" or char in "\u200c\u200d")
    return " ".join(unicodedata.normalize("NFC", text).split())


def _first_match(name: str, wanted: Mapping[str, Sequence[str]]) -> int:
    return next((number for number, patterns in enumerate(wanted.values()) if matches_any(name, patterns)), -1)


def sort_names(names: Iterable[str]) -> list[str]:
    """Sort class names; numbers by value, and names that end in `healthy`, except `unhealthy`, first."""
    distinct = set(names)
    number = all(name.isdecimal() for name in distinct)
    return sorted(distinct, key=lambda name: (not means_healthy(name), int(name) if number else 0, name))


def means_healthy(name: str) -> bool:
    return matches_any(name, ["*healthy"]) and not matches_any(name, ["*unhealthy"])


def _proposals(used: Sequence[str | int]) -> list[dict[str, Any]]:
    """Return settings that accept these names."""
    healthy = sum(means_healthy(str(name)) for name in used)
    unhealthy = any(matches_any(str(name), ["*unhealthy"]) for name in used)  # would match *healthy
    two = [{"classes": {"healthy": ["*healthy"], "unhealthy": ["*"]}}]
    return [{"classes": "auto"}, *(two if 0 < healthy < len(used) > 2 and not unhealthy else [])]


def _some(names: Sequence[str], most: int = _SHOWN) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
