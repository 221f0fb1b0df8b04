"""What the folds of a cross-validation say together: mean, spread, intervals, and how validation flattered."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from leaf.errors import LeafError
from leaf.scoring.intervals import t_interval, wilson


@dataclass(frozen=True)
class Folds:
    """Accuracies of the F folds, float64 (F,), on their `test` and `validation` images; `right` of `images` in all."""

    test: np.ndarray
    validation: np.ndarray
    tested: list[int]
    right: int

    @property
    def images(self) -> int:
        return sum(self.tested)

    def __str__(self) -> str:
        """A table of the folds, then mean, standard deviation, both intervals and the gap, a line each."""
        low, high = t_interval(self.test)
        all_low, all_high = wilson(self.right, self.images)
        gap = 100 * (self.validation - self.test)
        gap_low, gap_high = t_interval(gap)
        rows = zip(self.tested, self.test, self.validation, strict=True)
        lines = [
            "fold  test images  test accuracy  validation accuracy",
            *(f"{number:4}  {n:11}  {test:13.3f}  {shown:19.3f}" for number, (n, test, shown) in enumerate(rows)),
            "",
            f"accuracy over {len(self.test)} folds: mean {self.test.mean():.3f}, standard deviation "
            f"{self.test.std(ddof=1):.3f}",
            f"95 % interval of the mean over folds (Student's t): {max(low, 0):.3f} to {min(high, 1):.3f}",
            f"95 % interval of all {self.images} images, each tested once (Wilson): {self.right / self.images:.3f}, "
            f"{all_low:.3f} to {all_high:.3f}",
            f"validation minus test: {gap.mean():+.1f} points (95 % over folds: {gap_low:+.1f} to {gap_high:+.1f})",
            "Folds share training images, so the interval over folds is somewhat too narrow (Bengio, Grandvalet 2004); "
            "Wilson's knows nothing of groups.",
        ]
        return "\n".join(lines)


def summarize(predictions: Sequence[pd.DataFrame]) -> Folds:
    """Sum up the predictions `image,split,label,predicted` of every fold.

    Raises LeafError unless each image is tested in one fold alone and every image that a fold held out is tested.
    """
    parts = {name: [fold[fold["split"].eq(name)] for fold in predictions] for name in ("test", "validation")}
    tested = pd.concat(parts["test"])["image"]
    if tested.duplicated().any() or not set(pd.concat(parts["validation"])["image"]) <= set(tested):
        raise LeafError("folds: not of one data set: an image is tested twice or never; run all of them anew (--force)")
    right = {name: [part["predicted"].eq(part["label"]) for part in each] for name, each in parts.items()}
    return Folds(
        np.array([part.mean() for part in right["test"]]),
        np.array([part.mean() for part in right["validation"]]),
        [len(part) for part in right["test"]],
        int(sum(part.sum() for part in right["test"])),
    )
