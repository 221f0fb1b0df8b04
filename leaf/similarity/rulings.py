"""A person's rulings: pictures, named by their hash, that stay, leave or bear another label."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from leaf.errors import LeafError

COLUMNS = ("hash", "ruling", "label", "who", "why")


@dataclass(frozen=True)
class Rulings:
    """Hashes of pictures that stay, that leave, and that have a label (0 or 1) by a person's word."""

    keep: frozenset[str]
    drop: frozenset[str]
    relabel: dict[str, int]


def read(
    table: pd.DataFrame, hashes: Iterable[str], classes: Sequence[str], name: str = "data/overrides.csv"
) -> Rulings:
    """Check a table of rulings (text columns hash, ruling, label, who, why) against the `hashes` in the data set.

    A picture may have one keep or drop and one relabel. Raises LeafError, naming the line in the file `name`.
    """
    known = set(hashes)
    verdicts: dict[str, str] = {}
    relabel: dict[str, int] = {}
    cells = (table[column].astype(str).str.strip() for column in ("hash", "ruling", "label"))
    for line, (picture, ruling, label) in enumerate(zip(*cells, strict=True), start=2):
        where = f"{name}: line {line}"
        picture = picture.lower()
        if picture not in known:
            raise LeafError(
                f"{where}: no image has the hash {picture!r}; valid: one from data/ingested/index.csv "
                "(`leaf why IMAGE` shows it)"
            )
        if ruling not in ("keep", "drop", "relabel"):
            raise LeafError(f"{where}: unknown ruling {ruling!r}; valid: keep, drop, relabel")
        if ruling == "relabel":
            if label not in classes:
                raise LeafError(f"{where}: unknown label {label!r}; valid: {', '.join(classes)}")
            if picture in relabel:
                raise LeafError(f"{where}: a second relabel of {picture}; valid: one")
            relabel[picture] = list(classes).index(label)
        else:
            if label:
                raise LeafError(f"{where}: {ruling} with a label, {label!r}; valid: none, or the ruling relabel")
            if picture in verdicts:
                raise LeafError(f"{where}: a second ruling on {picture}, {verdicts[picture]} before; valid: one")
            verdicts[picture] = ruling
    return Rulings(
        frozenset(picture for picture, ruling in verdicts.items() if ruling == "keep"),
        frozenset(picture for picture, ruling in verdicts.items() if ruling == "drop"),
        relabel,
    )
