import pandas as pd
import pytest

from leaf.errors import LeafError
from leaf.similarity import decisions

CLASSES = ("healthy", "unhealthy")


def read(*rows: tuple[str, str, str]) -> decisions.Rulings:
    table = pd.DataFrame([(*row, "A. Person", "looked") for row in rows], columns=list(decisions.COLUMNS))
    return decisions.read_rulings(table, ["aa", "bb", "cc"], CLASSES)


def test_each_ruling_is_read_with_the_class_as_a_number() -> None:
    ruled = read(("aa", "keep", ""), ("BB ", " drop", ""), ("cc", "relabel", "unhealthy"), ("aa", "relabel", "healthy"))
    assert ruled == decisions.Rulings(frozenset({"aa"}), frozenset({"bb"}), {"cc": 1, "aa": 0})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("aa", "keep", ""), ("dd", "drop", "")], "line 3: no image has the hash 'dd'"),
        ([("aa", "remove", "")], "unknown ruling 'remove'; valid: keep, drop, relabel"),
        ([("aa", "relabel", "sick")], "unknown label 'sick'; valid: healthy, unhealthy"),
        ([("aa", "relabel", "")], "unknown label ''"),
        ([("aa", "drop", "healthy")], "drop with a label"),
        ([("aa", "keep", ""), ("aa", "drop", "")], "second ruling on aa, keep before"),
        ([("aa", "relabel", "healthy"), ("aa", "relabel", "unhealthy")], "second relabel of aa"),
    ],
)
def test_a_ruling_that_cannot_hold_is_one_line(rows: list[tuple[str, str, str]], message: str) -> None:
    with pytest.raises(LeafError, match=r"^data/overrides\.csv: line ") as caught:
        read(*rows)
    assert message in str(caught.value)
