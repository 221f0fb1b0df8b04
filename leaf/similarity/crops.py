"""Crops of one photograph: pairs that no threshold on raw pixels finds, by alignment of likely pairs."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from leaf.similarity import alignment, distances
from leaf.similarity.descriptors import descriptors

NEIGHBOURS = 2
# Squared distance of two descriptions from which they are of different photographs: planted crops lie closer in 98
# of 100 cases, a quarter (photographs of one kind) to a half of all nearest neighbours lie farther apart.
FARTHEST = 80.0
MOST_IMAGES = 50_000  # the search is left out above: it would take longer than all the rest of a pipeline's data stages
_CELL = 1024  # images that share a centre where the set is large
_PROBES = 3  # nearest centres whose images an image is compared with
_BLOCK = 1024


@dataclass(frozen=True)
class AlignedPairs:
    """Pairs of rows int64 (K,2), the smaller first: `mse` as they are, `aligned_mse` over one another, both (K,).

    `transform` says the shift, scale and turn in words, (K,) text.
    """

    rows: np.ndarray
    mse: np.ndarray
    aligned_mse: np.ndarray
    transform: np.ndarray


def same_photo_pairs(images: np.ndarray, rows: np.ndarray) -> AlignedPairs:
    """Pairs among the images in ascending `rows` (K,) that are crops of one photograph, uint8 or float32 (N,S,S,3).

    Each image is aligned with its NEIGHBOURS most similar ones and no others: of many crops of one photograph not
    every pair is listed, but they hang together as a group.
    """
    if len(rows) < 2:
        return AlignedPairs(np.empty((0, 2), np.int64), np.empty(0), np.empty(0), np.empty(0, object))
    plain = np.asarray(images)
    pairs = rows[_likely(descriptors(plain, rows), FARTHEST)]

    def align(pair: np.ndarray) -> alignment.Alignment | None:
        return alignment.align(plain[pair[0]], plain[pair[1]])

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # one image is too small to part; the pool parts the pairs
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # OpenCV works outside Python's lock
        made = list(pool.map(align, pairs, chunksize=64))
    cv2.setNumThreads(threads)
    same = np.array([each is not None for each in made], bool)
    found = [each for each in made if each is not None]
    return AlignedPairs(
        pairs[same],
        distances.of_pairs(images, pairs[same]),
        np.array([each.mse for each in found]),
        np.array([alignment.describe(each.matrix, plain.shape[1]) for each in found], object),
    )


def _likely(points: np.ndarray, farthest: float = np.inf) -> np.ndarray:
    """Places of pairs int64 (P,2), each once and the smaller first, of an image and a near neighbour of it.

    Pairs whose squared distance is above `farthest` are left out.
    """
    near = [_nearest(points, members) for members in _cells(points)]
    first, second, gap = (np.concatenate(part) for part in zip(*near, strict=True))
    close = gap <= farthest
    first, second, gap = first[close], second[close], gap[close]
    order = np.lexsort((second, gap, first))
    first, second = first[order], second[order]
    new = np.ones(len(first), bool)  # the same neighbour may come from several cells
    new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    first, second = first[new], second[new]
    begin = np.searchsorted(first, first)
    nearest = np.arange(len(first)) - begin < NEIGHBOURS
    pairs = np.stack([first[nearest], second[nearest]], axis=1)
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _cells(points: np.ndarray) -> list[np.ndarray]:
    """Sets of places, overlapping, such that near neighbours share one: all places where there are few.

    The time of comparing all with all grows with the square; of each with its nearest cells, with the power 3/2.
    """
    count = len(points)
    if count <= 8 * _CELL:
        return [np.arange(count)]
    centres = points[:: _CELL // 2]
    cell = np.empty((count, _PROBES), np.int64)
    for start in range(0, count, _BLOCK):
        gap = _gaps(points[start : start + _BLOCK], centres)
        cell[start : start + _BLOCK] = np.argpartition(gap, _PROBES - 1, axis=1)[:, :_PROBES]
    order = np.argsort(cell.ravel(), kind="stable")
    return np.split(order // _PROBES, np.searchsorted(cell.ravel()[order], np.arange(1, len(centres))))


def _nearest(points: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nearest neighbours of each of `members` among them: places of both, and squared distances."""
    wanted = min(NEIGHBOURS, len(members) - 1)
    mine = points[members]
    near = np.empty((len(members), wanted), np.int64)
    gaps = np.empty((len(members), wanted), np.float32)
    for start in range(0, len(members), _BLOCK):
        gap = _gaps(mine[start : start + _BLOCK], mine)
        gap[np.arange(len(gap)), np.arange(start, start + len(gap))] = np.inf
        near[start : start + _BLOCK] = chosen = np.argpartition(gap, max(wanted - 1, 0), axis=1)[:, :wanted]
        gaps[start : start + _BLOCK] = np.take_along_axis(gap, chosen, axis=1)
    return np.repeat(members, wanted), members[near].ravel(), gaps.ravel()


def _gaps(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared distances (A,B) of points (A,D) and (B,D), but for rounding."""
    return (some**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * some @ others.T
