"""Labels as numbers."""

import numpy as np

from leaf.errors import LeafError
from leaf.reading.pickles import shown


def to_numbers(values: list[str | int] | np.ndarray, classes: tuple[str, str], name: str) -> np.ndarray:
    """Labels as uint8 (N,), 0 for classes[0]: from class names, or from whole numbers 0 and 1.

    Raises LeafError with the first label that is neither, and where it stands.
    """
    known: dict[str | int, int] = {classes[0]: 0, classes[1]: 1, 0: 0, 1: 1}
    numbers = np.empty(len(values), np.uint8)
    for place, value in enumerate(values):
        number = known.get(value)
        if number is None:
            raise LeafError(
                f"{name}: labels: image {place} is {shown(repr(value))}; valid: {', '.join(classes)} (key `classes`)"
            )
        numbers[place] = number
    return numbers
