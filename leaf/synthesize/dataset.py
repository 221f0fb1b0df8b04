"""The demo data set: the number of images of each kind, their order, and the .npz file."""

import pickle
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from leaf.store import replacing
from leaf.synthesize.leaves import draw_leaf

_BLOCK = 64  # images converted to float32 and written per batch


@dataclass(frozen=True)
class ImageCounts:
    """The number of images of each kind in a data set."""

    healthy: int  # number of distinct synthetic leaves
    unhealthy: int
    copies: int  # number of copies of each of the two cartoons; the first is labeled unhealthy, the second healthy
    healthy_duplicates: int  # number of exact copies of synthetic leaves, with the same label
    unhealthy_duplicates: int

    @property
    def images(self) -> int:
        """The total number of images."""
        return self.healthy + self.unhealthy + 2 * self.copies + self.healthy_duplicates + self.unhealthy_duplicates


COURSE = ImageCounts(healthy=3060, unhealthy=1790, copies=98, healthy_duplicates=41, unhealthy_duplicates=113)


def scaled(images: int) -> ImageCounts:
    """Scale the course's counts, rounded, to `images` in total. The rest are healthy leaves."""
    others = COURSE.unhealthy, COURSE.copies, COURSE.healthy_duplicates, COURSE.unhealthy_duplicates
    unhealthy, copies, *duplicates = (round(count * images / COURSE.images) for count in others)
    return ImageCounts(images - unhealthy - 2 * copies - sum(duplicates), unhealthy, copies, *duplicates)


def draw_dataset(
    counts: ImageCounts, size: int, seed: int, diseases: Sequence[str] = ("",)
) -> tuple[np.ndarray, np.ndarray]:
    """Draw every image of `counts` in random order, with a progress bar on a terminal.

    Each leaf depends only on the seed and its number. `diseases` from `DISEASES`, or "" for any, are assigned to the
    unhealthy leaves in turn.

    Returns:
        Images, uint8 (N,size,size,3), and labels, uint8 (N,): 0 for healthy, then the diseases.
    """
    rng = np.random.default_rng(seed)
    drawn = counts.healthy + counts.unhealthy
    sick = 1 + np.arange(counts.unhealthy) % len(diseases)
    labels = np.concatenate([np.zeros(counts.healthy, int), sick, [1, 0]])
    healthy_copies = rng.choice(counts.healthy, counts.healthy_duplicates, replace=False)
    sick_copies = counts.healthy + rng.choice(counts.unhealthy, counts.unhealthy_duplicates, replace=False)
    cartoons = np.repeat([drawn, drawn + 1], counts.copies)
    sources = np.concatenate([np.arange(drawn), healthy_copies, sick_copies, cartoons])
    rng.shuffle(sources)
    images = np.empty((counts.images, size, size, 3), np.uint8)
    for number in tqdm(range(drawn), "drawing", disable=None):
        disease = diseases[labels[number] - 1] if labels[number] else ""
        leaf = draw_leaf(np.random.default_rng([seed, number]), size, not labels[number], disease)
        images[sources == number] = leaf
    for cartoon in (0, 1):
        images[sources == drawn + cartoon] = draw_cartoon(cartoon, size)
    return images, labels[sources].astype(np.uint8)


def write_npz(path: str | Path, images: np.ndarray, names: Sequence[str]) -> None:
    """Write images (N,H,W,3) and their class names in the format of the course data set.

    `data` is uncompressed float32, and `labels` is an object array of str, pickled with protocol 3. Identical input
    produces byte-identical files.
    """
    labels = np.array(list(names), dtype=object)
    with replacing(path) as partial, zipfile.ZipFile(partial, "w") as file:
        with file.open(_member("data", 4 * images.size), "w") as out:
            header = {"descr": "<f4", "fortran_order": False, "shape": images.shape}
            np.lib.format.write_array_header_1_0(out, header)
            for start in range(0, len(images), _BLOCK):
                out.write(images[start : start + _BLOCK].astype("<f4").data)
        with file.open(_member("labels", 0), "w") as out:
            np.lib.format.write_array_header_1_0(out, {"descr": "|O", "fortran_order": False, "shape": labels.shape})
            out.write(pickle.dumps(labels, protocol=3))


def _member(name: str, size: int) -> zipfile.ZipInfo:
    """Return a zip entry with a fixed date. It includes the size, so that ZIP64 is used only if necessary.

    With ZIP64 forced, Python 3.11.2 and 3.11.7 write different bytes.
    """
    member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
    member.file_size = size
    return member


def draw_cartoon(number: int, size: int) -> np.ndarray:
    """Draw cartoon 0 (a green frog) or 1 (a singer with a hat): uint8 (size,size,3) RGB, always the same."""
    canvas = np.zeros((384, 384, 3), np.uint8)
    (_frog, _singer)[number](canvas)
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)


def _frog(canvas: np.ndarray) -> None:
    canvas[:] = (38, 74, 110)
    green, dark = (126, 190, 62), (24, 40, 20)
    cv2.ellipse(canvas, (192, 230), (150, 116), 0, 0, 360, green, -1, cv2.LINE_AA)
    for x in (104, 280):
        cv2.circle(canvas, (x, 116), 58, green, -1, cv2.LINE_AA)
        cv2.circle(canvas, (x, 110), 38, (250, 250, 240), -1, cv2.LINE_AA)
        cv2.circle(canvas, (x + 8, 114), 17, dark, -1, cv2.LINE_AA)
        cv2.circle(canvas, (192 + (x - 192) // 5, 206), 5, dark, -1, cv2.LINE_AA)
    cv2.ellipse(canvas, (192, 236), (96, 58), 0, 10, 170, dark, 9, cv2.LINE_AA)
    cv2.ellipse(canvas, (192, 306), (26, 22), 0, 0, 360, (226, 96, 110), -1, cv2.LINE_AA)


def _singer(canvas: np.ndarray) -> None:
    canvas[:, :192], canvas[:, 192:] = (236, 178, 44), (70, 44, 120)
    cv2.circle(canvas, (192, 222), 116, (246, 214, 176), -1, cv2.LINE_AA)
    cv2.rectangle(canvas, (62, 116), (322, 140), (28, 28, 34), -1)
    cv2.rectangle(canvas, (106, 22), (278, 124), (28, 28, 34), -1)
    cv2.rectangle(canvas, (106, 92), (278, 112), (190, 30, 48), -1)
    for x in (148, 236):
        cv2.circle(canvas, (x, 200), 13, (28, 28, 34), -1, cv2.LINE_AA)
    cv2.ellipse(canvas, (192, 276), (40, 34), 0, 0, 360, (120, 20, 30), -1, cv2.LINE_AA)
    cv2.putText(canvas, "LA LA", (96, 372), cv2.FONT_HERSHEY_DUPLEX, 1.9, (250, 250, 250), 5, cv2.LINE_AA)
