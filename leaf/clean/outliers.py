"""Find outliers: all copies of an unwanted reference image, by mean squared error to that image.

All images are ranked by their distance to the reference. Its copies come first, including re-saved ones. Then the
distance jumps, and the ranking is cut at the jump.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from leaf.clean.distances import differ_locally, fine_means, to_references, tolerance
from leaf.errors import LeafError

Reference = int | tuple[str, np.ndarray]
"""An image number, or the name and pixels (S,S,3) of an image outside the data set."""

# Saving an image as JPEG again changes it by some tens of gray levels squared (quality 75: median 26, 95th percentile
# 78; quality 50: 51 and 121). The closest different photos measured are 383 apart.
# NOISE is the noise floor added to both distances when testing for a jump, so that small distances cannot produce one.
NOISE = 25.0
FACTOR = 4.0  # a jump is clear if the distance after it is at least this many times the one before it
REACH = 400.0  # an image farther from the reference is not a copy, even before a jump
MOST_PROPOSED = 50
MOST_ALIKE = 3  # if more images of a class have equally many copies, the class was oversampled
RANKING_TAIL = 2000  # images after the cut that a ranking keeps


@dataclass(frozen=True)
class Ranking:
    """The images nearest to one reference, and the cut.

    `reference` is an image number or a file name. `order`, int64 (K,), lists the nearest images by distance, and
    `distance`, float64 (K,), their distances. The first `outliers` images are copies of the reference; `outliers` is 0
    if there is no clear jump.
    """

    reference: str
    order: np.ndarray
    distance: np.ndarray
    outliers: int


def frequent(first: np.ndarray, near: np.ndarray, labels: np.ndarray, copies: int) -> tuple[list[int], list[int]]:
    """Return images with at least `copies` exact or near copies, the most frequent first.

    Args:
        first: int64 (N,), the first exact copy of each image.
        near: int64 (K,2), near pairs among the first copies. Only direct pairs count, not chains.
        labels: int (N,).
        copies: the minimum number of copies.

    Returns:
        Up to `MOST_PROPOSED` images that look like outliers, and the images of classes that look oversampled: a
        class looks oversampled if more than `MOST_ALIKE` of its images, or most of them, have more than half as many
        copies.
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
    """Return the number of ascending `distances` (K,) before a clear jump, or 0 if there is none.

    The jump is where (next d + NOISE) / (d + NOISE) is largest among distances d up to REACH. It is clear if that ratio
    is at least FACTOR. Dark and bright photos are separated by a jump, but are far from any reference. Photos on the
    same cloth are close to each other, but no jump separates them.
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

    Images at infinite distance are not ranked. `own` is the number of the reference if it is in the data set. Its
    distance of 0 is not evidence of copies, so only the other images are searched for a jump; the reference is then
    removed along with its copies.
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
    """Return for each image the ranking in which it is an outlier, int64 (count,), or -1, and its distance or NaN.

    If an image is an outlier in several rankings, the one with the smallest distance is used; ties go to the first.
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
    """Rank all images (N,S,S,3) by distance to each reference, and cut each ranking as `rank` does.

    `first`, int64 (N,), is the first exact copy of each image, and `small` the block means of those first copies, in
    order. If `cut` is `jump`, REACH is added to the distance of an image that differs in only one place: it shows
    another subject on the same background.

    Raises:
        LeafError: if an image number does not exist.
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
    """Return the name and pixels of a reference, and its number if it is in the data set."""
    own = None
    if isinstance(reference, tuple):
        name, pixels = reference
    else:
        if not 0 <= reference < len(images):
            raise LeafError(f"references: there is no image {reference}; valid: 0 to {len(images) - 1}, or file names")
        name, pixels, own = str(reference), np.asarray(images[reference]), reference
    return name, np.ascontiguousarray(pixels, images.dtype), own


def ranking_table(rankings: Sequence[Ranking]) -> pd.DataFrame:
    """Return one row per ranking and image: `reference,rank,image,distance,outlier`."""
    table = pd.DataFrame(columns=["reference", "rank", "image", "distance", "outlier"])
    parts = []
    for each in rankings:
        rank = np.arange(min(len(each.order), each.outliers + RANKING_TAIL))
        columns = each.reference, rank + 1, each.order[: len(rank)], each.distance[: len(rank)], rank < each.outliers
        parts.append(pd.DataFrame(dict(zip(table, columns, strict=True))).astype({"outlier": int}))
    return pd.concat(parts) if parts else table
