"""Outliers: all copies of an image that does not belong, found by mean squared error to a reference.

All images are ranked by their distance to the reference. Its copies, re-saved ones included, come first in the ranking,
then the distance jumps. The cut is at the jump.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from leaf.clean.distances import differ_locally, fine_means, to_references, tolerance
from leaf.errors import LeafError

Reference = int | tuple[str, np.ndarray]
"""The number of an image, or the name and the pixels (S,S,3) of an image outside the data set."""

# A re-save as JPEG moves an image by some tens of gray levels squared (quality 75: median 26, 95th percentile 78;
# quality 50: 51 and 121). The closest different photos measured are 383 apart.
NOISE = 25.0  # added to both distances at a jump: smaller distances count as zero
FACTOR = 4.0  # a jump is clear if the distance after it is this many times the one before it
REACH = 400.0  # an image farther from the reference is no copy, even before a jump
MOST_PROPOSED = 50
MOST_ALIKE = 3  # if more images of a class are copied equally often, the class was oversampled
RANKING_TAIL = 2000  # images of a ranking kept after the cut


@dataclass(frozen=True)
class Ranking:
    """The images nearest to one reference, and the cut.

    `reference` is an image number or a file name, `order` int64 (K,) the nearest images by distance, `distance` float64
    (K,) their distances. The first `outliers` of them are copies of the reference; 0 without a clear jump.
    """

    reference: str
    order: np.ndarray
    distance: np.ndarray
    outliers: int


def frequent(first: np.ndarray, near: np.ndarray, labels: np.ndarray, copies: int) -> tuple[list[int], list[int]]:
    """Return images with at least `copies` copies, near ones included, the most frequent first.

    Args:
        first: int64 (N,), each image's first exact copy.
        near: int64 (K,2), the near pairs among first copies. Only direct neighbors count, not chains.
        labels: int (N,).
        copies: the smallest number of copies.

    Returns:
        The images that seem to be outliers, at most `MOST_PROPOSED`, and those of classes that seem oversampled: more
        than `MOST_ALIKE` images of the class are copied more than half as often, or they are most images of the class.
        Images near a returned one are not returned.
    """
    exact = np.bincount(first, minlength=len(first))
    times = exact.copy()
    np.add.at(times, near[:, 0], exact[near[:, 1]])
    np.add.at(times, near[:, 1], exact[near[:, 0]])
    times[first != np.arange(len(first))] = 0
    often = np.flatnonzero(times >= max(copies / 2, 2))
    both = np.concatenate([near, near[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]
    taken = np.zeros(len(first), bool)
    often_copied: list[int] = []
    for image in often[np.argsort(-times[often], kind="stable")]:
        if taken[image]:
            continue
        often_copied.append(int(image))
        low, high = np.searchsorted(both[:, 0], [image, image + 1])
        taken[both[low:high, 1]] = True
    proposed: list[int] = []
    copied: list[int] = []
    for label in np.unique(labels[often_copied]):
        own = np.array([image for image in often_copied if labels[image] == label])
        for image in own[times[own] >= copies].tolist():
            alike = own[times[own] > times[image] / 2]
            alone = len(alike) <= MOST_ALIKE and 2 * len(alike) <= len(np.unique(first[labels == label]))
            (proposed if alone else copied).append(image)
    proposed.sort(key=lambda image: (-times[image], image))
    return proposed[:MOST_PROPOSED], copied


def jump(distances: np.ndarray) -> int:
    """Return the number of the ascending `distances` (K,) before a clear jump, or 0 without one.

    The jump is the place with the largest (next d + NOISE) / (d + NOISE) among distances d up to REACH; it is clear if
    that ratio is at least FACTOR. Dark and bright photos have a jump between them, but far from any reference; photos
    of one cloth are near one another, but without a jump.
    """
    before, behind = distances[:-1], distances[1:]
    reachable = int(np.searchsorted(before, REACH, side="right"))
    if not reachable:
        return 0
    ratio = (behind[:reachable] + NOISE) / (before[:reachable] + NOISE)
    place = int(np.argmax(ratio))
    return place + 1 if ratio[place] >= FACTOR else 0


def rank(reference: str, distances: np.ndarray, cut: float | Literal["jump"], own: int | None = None) -> Ranking:
    """Rank images by `distances` (N,) to `reference` and cut at the jump, or after the last distance <= `cut`.

    Images at an infinite distance are left out of the ranking. `own` is the reference's number if it is an image of the
    data set: its distance of 0 is no evidence of copies, so the jump is sought among the others, and the reference
    leaves with its copies.
    """
    ranked = np.flatnonzero(np.isfinite(distances))
    order = ranked[np.argsort(distances[ranked], kind="stable")]
    distance = distances[order]
    if cut != "jump":
        return Ranking(reference, order, distance, int(np.searchsorted(distance, cut, side="right")))
    others = distance if own is None else np.delete(distance, np.flatnonzero(order == own))
    count = jump(others)
    return Ranking(reference, order, distance, count + (own is not None) if count else 0)


def nearest(rankings: Sequence[Ranking], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the ranking that has each image as an outlier, int64 (count,), -1 for none, and its distance or NaN.

    Of several rankings the one with the smallest distance counts, the earlier one of equals.
    """
    place = np.full(count, -1, np.int64)
    distance = np.full(count, np.inf)
    for number, ranking in enumerate(rankings):
        images, here = ranking.order[: ranking.outliers], ranking.distance[: ranking.outliers]
        closer = here < distance[images]
        place[images[closer]], distance[images[closer]] = number, here[closer]
    distance[place < 0] = np.nan
    return place, distance


def rankings(
    images: np.ndarray,
    first: np.ndarray,
    small: np.ndarray,
    references: Sequence[Reference],
    cut: float | Literal["jump"],
) -> list[Ranking]:
    """Rank all images (N,S,S,3) by their distance to each reference and cut each ranking as `rank` does.

    `first` int64 (N,) is each image's first exact copy, `small` the block means of those first copies, in order. With
    `cut` jump, REACH is added to the distance of an image that differs in one place: it shows another subject on the
    same background. Raises LeafError for the number of an image that does not exist.
    """
    distinct, place = np.unique(first, return_inverse=True)
    named = [_named(images, reference) for reference in references]
    within = REACH if cut == "jump" else cut
    measured = to_references(images, distinct, small, [pixels for _, pixels, _ in named], within, RANKING_TAIL)
    found = []
    for (name, pixels, own), distance in zip(named, measured, strict=True):
        if cut == "jump":
            near = np.flatnonzero(distance <= REACH)
            means = fine_means(pixels[None], np.zeros(1, np.int64))
            local = differ_locally(fine_means(images, distinct[near]), means, distance[near], tolerance(len(pixels)))
            distance[near[local]] += REACH
        found.append(rank(name, distance[place], cut, own))
    return found


def _named(images: np.ndarray, reference: Reference) -> tuple[str, np.ndarray, int | None]:
    """Return the name and pixels of a reference, and its number if it is an image of the data set."""
    own = None
    if isinstance(reference, tuple):
        name, pixels = reference
    else:
        if not 0 <= reference < len(images):
            raise LeafError(f"references: there is no image {reference}; valid: 0 to {len(images) - 1}, or file names")
        name, pixels, own = str(reference), np.asarray(images[reference]), reference
    return name, np.ascontiguousarray(pixels, images.dtype), own


def ranking_table(rankings: Sequence[Ranking]) -> pd.DataFrame:
    """Return a row per image of each ranking: `reference,rank,image,distance,outlier`."""
    parts = []
    for ranking in rankings:
        rows = min(len(ranking.order), ranking.outliers + RANKING_TAIL)
        parts.append(
            pd.DataFrame(
                {
                    "reference": ranking.reference,
                    "rank": np.arange(1, rows + 1),
                    "image": ranking.order[:rows],
                    "distance": ranking.distance[:rows],
                    "outlier": (np.arange(rows) < ranking.outliers).astype(int),
                }
            )
        )
    return pd.concat(parts) if parts else pd.DataFrame(columns=["reference", "rank", "image", "distance", "outlier"])
