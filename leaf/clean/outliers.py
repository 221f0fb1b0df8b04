"""Outliers: all copies of a picture that does not belong, found by mean squared error to one reference of it.

All images are ranked by their distance to the reference. Copies of it, re-saved ones too, stand at the head of that
ranking; then comes a jump, and then everything else. The cut falls there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from leaf.clean.distances import differ_locally, fine_means, to_references, tolerance
from leaf.errors import LeafError

Reference = int | tuple[str, np.ndarray]
"""The number of an image of the set, or the name and the pixels (S,S,3) of another picture."""

# A re-save as JPEG moves an image by some tens of grey levels squared (quality 75: median 26, 95th percentile 78;
# quality 50: 51 and 121), and the closest different photographs known to us stand 383 apart.
NOISE = 25.0  # distances below it are as good as zero
FACTOR = 4.0  # a jump is clear where the distance behind it, noise added, is so many times the one before it
REACH = 400.0  # an image farther than this from the reference is not a copy of it, even before a jump
MOST_PROPOSED = 50
MOST_ALIKE = 3  # pictures of one class; where more are copied alike, a person multiplied a class
# A ranking is kept as far as the outliers and so many images behind the cut; the rest of a huge set says nothing.
RANKING_TAIL = 2000


@dataclass(frozen=True)
class Ranking:
    """One reference, its distances to all images, and the cut.

    `reference` is an image number or a file name; `order` int64 (K,) the nearest images by distance; `distance`
    float64 (K,) in that order; the first `outliers` of them are copies of the reference; 0 where no clear jump was
    found.
    """

    reference: str
    order: np.ndarray
    distance: np.ndarray
    outliers: int


def frequent(first: np.ndarray, near: np.ndarray, labels: np.ndarray, copies: int) -> tuple[list[int], list[int]]:
    """Images that stand in the set at least `copies` times, near copies counted, the most frequent first.

    `first` int64 (N,) names each image's first exact copy, `near` int64 (K,2) the near pairs among first copies,
    `labels` int (N,). Only direct neighbours count, no chains of them; images near a named one are not named again.

    Returns those whose copies stand alone, at most `MOST_PROPOSED`: they are outliers as it seems. And those that do
    not: more than `MOST_ALIKE` pictures of their class are copied more than half as often, or they are most
    pictures of the class, so that somebody copied photographs on purpose.
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
    pictures: list[int] = []
    for image in often[np.argsort(-times[often], kind="stable")]:
        if taken[image]:
            continue
        pictures.append(int(image))
        low, high = np.searchsorted(both[:, 0], [image, image + 1])
        taken[both[low:high, 1]] = True
    proposed: list[int] = []
    copied: list[int] = []
    for label in np.unique(labels[pictures]):
        own = np.array([image for image in pictures if labels[image] == label])
        for image in own[times[own] >= copies].tolist():
            alike = own[times[own] > times[image] / 2]
            alone = len(alike) <= MOST_ALIKE and 2 * len(alike) <= len(np.unique(first[labels == label]))
            (proposed if alone else copied).append(image)
    proposed.sort(key=lambda image: (-times[image], image))
    return proposed[:MOST_PROPOSED], copied


def jump(distances: np.ndarray) -> int:
    """How many of the ascending `distances` (K,) stand before a clear jump: 0 where there is none.

    Of all places where the distance d is at most REACH, the one with the largest (next d + NOISE) / (d + NOISE) is
    taken, and it is clear where that ratio is at least FACTOR. Both conditions are needed: a set of dark and of
    bright photographs has a jump between the two, but far from any reference; and among photographs of one cloth
    some stand near, but with no jump behind them.
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

    An infinite distance says that the image stands behind all others and outside the ranking.
    `own` is the reference's own number where it is an image of the set: its distance of 0 to itself is no evidence
    of copies, so the jump is sought among the others; where there is one, the reference leaves with its copies.
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
    """For each of `count` images, which ranking has it as an outlier, and at what distance.

    Returns the ranking's place int64 (count,), -1 for none, and the distance float64 (count,), NaN for none. Of
    several rankings the one with the smallest distance counts, the earlier one of equals.
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
    """Rank all images (N,S,S,3) by their distance to each reference, and cut each ranking as `rank` does.

    `first` int64 (N,) names each image's first exact copy; `small` are the block means of those first copies, in order.
    Raises LeafError for the number of an image that does not exist.
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
            distance[near[local]] += REACH  # another subject on the same background
        found.append(rank(name, distance[place], cut, own))
    return found


def _named(images: np.ndarray, reference: Reference) -> tuple[str, np.ndarray, int | None]:
    """Name and pixels of a reference, and its number where it is an image of the set."""
    own = None
    if isinstance(reference, tuple):
        name, pixels = reference
    else:
        if not 0 <= reference < len(images):
            raise LeafError(f"references: there is no image {reference}; valid: 0 to {len(images) - 1}, or file names")
        name, pixels, own = str(reference), np.asarray(images[reference]), reference
    return name, np.ascontiguousarray(pixels, images.dtype), own


def ranking_table(rankings: Sequence[Ranking]) -> pd.DataFrame:
    """The nearest images of each ranking, a row each: `reference,rank,image,distance,outlier`."""
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
