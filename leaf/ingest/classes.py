"""Map the class names found in a data set to the classes in params.yaml."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from leaf.errors import LeafError, plural

Wanted = Literal["auto"] | Sequence[str] | Mapping[str, Sequence[str]]

_LONGEST = 200  # maximum length of a class name, which appears in tables, pages and metric names


def resolve(
    found: Sequence[str | int], sources: Sequence[str], wanted: Wanted, ignore: Sequence[str], dataset: object
) -> tuple[list[str], np.ndarray]:
    """Return the class names in label order, and the label of each image, int64 (N,).

    Args:
        found: class name of each image. An integer (from an .npz file) is an index into `wanted` if that is a list.
        sources: image names for error messages.
        wanted: `auto` for all names in `found`, sorted with healthy classes first; a list of names; or a mapping of
            class names to case-insensitive shell patterns, of which the first match applies.
        ignore: shell patterns of class names to exclude; excluded images get the label -1.
        dataset: name of the data set for error messages.

    Raises:
        LeafError: if a class name is too long or matches no class, if there are fewer than two classes, or if a class
            has no images. If a name matches no class, `proposals` contains values for `classes`.
    """
    counts = Counter(found)
    for name in counts:
        if len(str(name)) > _LONGEST:
            raise LeafError(
                f"{dataset}: {sources[found.index(name)]}: the class name has {len(str(name))} characters; the limit "
                f"is {_LONGEST}. Shorten it."
            )
    used = [name for name in counts if not matches_any(str(name), ignore)]
    if isinstance(wanted, Mapping):
        names = list(wanted)
        matches = {name: [matches_any(str(name), patterns) for patterns in wanted.values()] for name in used}
        label = {name: each.index(True) if any(each) else -1 for name, each in matches.items()}
    else:
        names = sort_names(nfc(str(name)) for name in used) if wanted == "auto" else list(wanted)
        place = {nfc(name): number for number, name in enumerate(names)}
        label = {name: place.get(nfc(str(name)), name if isinstance(name, int) else -1) for name in used}
    foreign = [name for name in used if not 0 <= label[name] < len(names)]
    if foreign:
        named = [f"{name!r} ({plural(counts[name], 'image')}, first: {sources[found.index(name)]})" for name in foreign]
        problem = "matched by no pattern in `classes`" if isinstance(wanted, Mapping) else "not in `classes`"
        raise LeafError(f"{dataset}: {_some(named, 3)}: {problem} ({_some(names)})", proposals=_proposals(used))
    labels = np.array([label.get(name, -1) for name in found], np.int64)
    check_present(labels, names, dataset)
    return names, labels


def check_present(
    labels: np.ndarray, names: Sequence[str], dataset: object, unreadable: Mapping[str, str] | None = None
) -> None:
    """Raise LeafError unless there are at least two classes and each has an image.

    `unreadable` maps files that cannot be read to the reason, for the message.
    """
    reasons = Counter((unreadable or {}).values()).most_common(3)
    listed = "; ".join(f"{plural(count, 'file')}: {reason}" for reason, count in reasons)
    why = f" ({listed})" if reasons else ""
    if not (labels >= 0).any():
        if not reasons:
            raise LeafError(f"{dataset}: all images are excluded. Check `ignore` and the labels.")
        raise LeafError(f"{dataset}: no image can be read{why}. Replace the files.")
    if len(names) < 2:
        raise LeafError(f"{dataset}: all images have the same class, {names[0]!r}. Use at least two classes.")
    for number, name in enumerate(names):
        if not (labels == number).any():
            raise LeafError(
                f"{dataset}: no image of the class {name}{why}. Add images, or exclude the class with `classes` or "
                "`ignore`."
            )


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(nfc(name).casefold(), nfc(pattern).casefold()) for pattern in patterns)


@lru_cache(maxsize=4096)
def nfc(text: str) -> str:
    """Normalize a name to Unicode NFC, collapse whitespace, and remove invisible characters."""
    if not text.isascii():
        text = "".join(char for char in text if unicodedata.category(char) != "Cf" or char in "\u200c\u200d")
    return " ".join(unicodedata.normalize("NFC", text).split())


def sort_names(names: Iterable[str]) -> list[str]:
    """Sort class names. Those that end in `healthy` but not in `unhealthy` come first. Numbers are sorted by value."""
    distinct = set(names)
    number = all(name.isdecimal() for name in distinct)
    return sorted(distinct, key=lambda name: (not means_healthy(name), int(name) if number else 0, name))


def means_healthy(name: str) -> bool:
    return matches_any(name, ["*healthy"]) and not matches_any(name, ["*unhealthy"])


def _proposals(used: Sequence[str | int]) -> list[dict[str, Any]]:
    """Return `classes` settings that accept the names `used`."""
    healthy = sum(means_healthy(str(name)) for name in used)
    unhealthy = any(matches_any(str(name), ["*unhealthy"]) for name in used)  # the pattern *healthy would match it
    two = [{"classes": {"healthy": ["*healthy"], "unhealthy": ["*"]}}]
    return [{"classes": "auto"}, *(two if 0 < healthy < len(used) > 2 and not unhealthy else [])]


def _some(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def few(names: Iterable[str]) -> str:
    """List up to three names, as in `'a', 'b', 'c' and 2 more`."""
    return _some([repr(name) for name in names], 3)
