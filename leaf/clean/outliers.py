"""Find outliers: copies of unwanted reference images.

All images are ranked by mean squared error to the reference. Copies of the reference come first, including recompressed
ones. The error jumps after the last copy, and the ranking is cut there.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from leaf.clean.distances import differ_locally, fine_means, to_references, tolerance
from leaf.errors import LeafError

Reference = int | tuple[str, np.ndarray]
"""An image number, or the name and pixels (S,S,3) of an image outside the data set."""

# Mean squared error after saving as JPEG again: median 26 and 95th percentile 78 at quality 75, 51 and 121 at quality
# 50. The smallest error measured between two different photos is 383.
NOISE = 25.0  # added to both distances when testing for a jump, so that small distances cannot produce one
FACTOR = 4.0  # minimum ratio of the distances after and before a clear jump
REACH = 400.0  # distance beyond which an image is not a copy, even before a jump
MOST_PROPOSED = 50  # maximum number of images that `references: auto` selects
MOST_ALIKE = 3  # if more images of a class have a similar number of copies, the class was oversampled
RANKING_TAIL = 2000  # number of images after the cut that a ranking includes
COLUMNS = ("reference", "rank", "image", "distance", "outlier")


def frequent(first: np.ndarray, near: np.ndarray, labels: np.ndarray, copies: int) -> tuple[list[int], list[int]]:
    """Find images with at least `copies` copies or near duplicates, most frequent first.

    `first`, int64 (N,), is the first exact copy of each image, and `near`, int64 (K,2), contains the pairs of near
    duplicates among the first copies. Only direct pairs count, not chains. `labels` are int (N,).

    Returns:
        Up to `MOST_PROPOSED` images that look like outliers, and images that were probably oversampled: more than
        `MOST_ALIKE` images of their class, or most of them, have more than half as many copies. Near duplicates of a
        returned image are omitted.
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
    is at least FACTOR. Dark and bright photos are also separated by a jump, but far beyond REACH. Photos on the same
    cloth are close to each other, but no jump separates them from the rest.
    """
    before, behind = distances[:-1], distances[1:]
    reachable = int(np.searchsorted(before, REACH, side="right"))
    if not reachable:
        return 0
    ratio = (behind[:reachable] + NOISE) / (before[:reachable] + NOISE)
    place = int(np.argmax(ratio))
    return place + 1 if ratio[place] >= FACTOR else 0


def rank(reference: str, distances: np.ndarray, cut: float | Literal["jump"], own: int | None = None) -> pd.DataFrame:
    """Rank images with finite `distances` (N,), and cut at the jump or after the last distance <= `cut`.

    `own` is the number of the reference if it is in the data set. Its distance of 0 is not evidence of a copy, so the
    jump is searched for among the other images. If there is a jump, the reference is an outlier too.

    Returns:
        A table `reference,rank,image,distance,outlier`, ordered by distance. `outlier` is 1 before the cut.
    """
    ranked = np.flatnonzero(np.isfinite(distances))
    order = ranked[np.argsort(distances[ranked], kind="stable")]
    distance = distances[order]
    if cut != "jump":
        count = int(np.searchsorted(distance, cut, side="right"))
    else:
        count = jump(distance if own is None else np.delete(distance, np.flatnonzero(order == own)))
        count += count > 0 and own is not None
    order, distance = order[: count + RANKING_TAIL], distance[: count + RANKING_TAIL]
    place = np.arange(len(order))
    columns = reference, place + 1, order, distance, (place < count).astype(int)
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))


def rankings(
    images: np.ndarray,
    first: np.ndarray,
    small: np.ndarray,
    references: Sequence[Reference],
    cut: float | Literal["jump"],
) -> pd.DataFrame:
    """Rank all images (N,S,S,3) by distance to each reference, and return the tables of `rank`.

    `first`, int64 (N,), is the first exact copy of each image, and `small` contains the block means of those copies. If
    `cut` is `jump`, REACH is added to the distance of images that differ in only one place, because they show another
    subject on the same background. Raises LeafError if an image number does not exist.
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
    return pd.concat(found) if found else pd.DataFrame(columns=COLUMNS)


def _named(images: np.ndarray, reference: Reference) -> tuple[str, np.ndarray, int | None]:
    """Return the name and pixels of a reference, and its number if it is in the data set."""
    own = None
    if isinstance(reference, tuple):
        name, pixels = reference
    else:
        if not 0 <= reference < len(images):
            raise LeafError(
                f"references: image {reference} does not exist; valid: 0 to {len(images) - 1}, or file names"
            )
        name, pixels, own = str(reference), np.asarray(images[reference]), reference
    return name, np.ascontiguousarray(pixels, images.dtype), own
