"""What a leak is worth: one recipe judged with its groups torn apart, and with its groups whole."""

from dataclasses import dataclass

import numpy as np

from leaf.scoring.compare import LEVEL

_REPLICATES = 10_000
_CHUNK = 500  # replicates at once: bounds what is held at 500 × groups × 8 bytes
NOTHING = 0.01  # an interval around 0 and within this says that the leak is worth about nothing


@dataclass(frozen=True)
class Leak:
    """Accuracy with the leak and without; difference = leaky − honest with its 95 % interval, as shares of images."""

    leaky: float
    honest: float
    low: float
    high: float
    images: tuple[int, int]
    groups: int
    repeats: int

    @property
    def difference(self) -> float:
        return self.leaky - self.honest

    @property
    def sentence(self) -> str:
        """What a person wants to know, in one plain sentence."""
        points, low, high = (100 * value for value in (self.difference, self.low, self.high))
        figures = f"{points:+.1f} points of accuracy (95 %: {low:+.1f} to {high:+.1f})"
        if self.low > 0:
            return f"The leak flatters this recipe: {figures}."
        if self.high < 0:
            return f"The leak does this recipe harm: {figures}."
        if max(-self.low, self.high) <= NOTHING:
            return f"The leak is worth about nothing to this recipe: {figures}."
        return f"What the leak is worth to this recipe is not distinguishable from nothing: {figures}."

    def __str__(self) -> str:
        """The sentence and where it comes from."""
        lines = [
            self.sentence,
            f"  leaky:  accuracy {self.leaky:.3f} on {self.images[0]} images, copies kept, parted at random",
            f"  honest: accuracy {self.honest:.3f} on {self.images[1]} images, copies out, {self.groups} groups whole",
            f"  every image tested once in each of {self.repeats} repeats; interval from a bootstrap over groups"
            + (" and repeats" if self.repeats > 1 else ": how much another seed would change is not in it"),
        ]
        return "\n".join(lines)


def leak(leaky: np.ndarray, honest: np.ndarray, groups: np.ndarray, seed: int = 0) -> Leak:
    """Compare two ways of testing the same N images in R repeats: `leaky` and `honest`, float64 (R, N).

    1 is right, 0 wrong, nan an image that this way leaves out. `groups` (N,): the images of one group are drawn
    together for the interval (percentile bootstrap), for both ways at once, and so are repeats.
    """
    random = np.random.default_rng(seed)
    _, place = np.unique(groups, return_inverse=True)
    # (groups, repeats) each: images right, and images tested
    sums = [_by_group(np.nan_to_num(way), place) for way in (leaky, honest)]
    tested = [_by_group(~np.isnan(way[:1]), place) for way in (leaky, honest)]
    differences = []
    for start in range(0, _REPLICATES, _CHUNK):
        size = min(_CHUNK, _REPLICATES - start)
        count = len(sums[0])
        times = random.multinomial(count, np.full(count, 1 / count), size).astype(np.float64)
        chosen = random.integers(len(leaky), size=(size, len(leaky)))
        first, second = (
            np.take_along_axis(times @ right / (times @ images), chosen, axis=1).mean(axis=1)
            for right, images in zip(sums, tested, strict=True)
        )
        differences.append(first - second)
    low, high = np.quantile(np.concatenate(differences), [LEVEL / 2, 1 - LEVEL / 2])
    return Leak(
        float(np.nanmean(leaky)),
        float(np.nanmean(honest)),
        float(low),
        float(high),
        (int(tested[0].sum()), int(tested[1].sum())),
        len(np.unique(groups[~np.isnan(honest[0])])),
        len(leaky),
    )


def _by_group(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Sums float64 (G, R) over the images of each group, of values (R, N)."""
    return np.stack([np.bincount(place, weights=row) for row in values], axis=1)
