import pandas as pd
import pytest

from leaf.errors import LeafError
from leaf.similarity import decisions

CLASSES = ("healthy", "unhealthy")


def read(*rows: tuple[str, ...]) -> decisions.Rulings:
    """Rows of hash, ruling, label and, where they have it, other."""
    cells = [(*row[:3], "A. Person", "looked", *row[3:]) for row in rows]
    columns = [*decisions.COLUMNS, "other"]
    table = pd.DataFrame(cells, columns=columns[: max(map(len, cells))])
    return decisions.read_rulings(table, ["aa", "bb", "cc"], CLASSES)


def test_each_ruling_is_read_with_the_class_as_a_number() -> None:
    ruled = read(("aa", "keep", ""), ("BB ", " drop", ""), ("cc", "relabel", "unhealthy"), ("aa", "relabel", "healthy"))
    assert ruled == decisions.Rulings(frozenset({"aa"}), frozenset({"bb"}), {"cc": 1, "aa": 0})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("aa", "keep", ""), ("dd", "drop", "")], "line 3: no image has the hash 'dd'"),
        ([("aa", "remove", "")], "unknown ruling 'remove'; valid: keep, drop, relabel, group, apart"),
        ([("aa", "relabel", "sick")], "unknown label 'sick'; valid: healthy, unhealthy"),
        ([("aa", "relabel", "")], "unknown label ''"),
        ([("aa", "drop", "healthy")], "drop with a label"),
        ([("aa", "keep", ""), ("aa", "drop", "")], "second ruling on aa, keep before"),
        ([("aa", "relabel", "healthy"), ("aa", "relabel", "unhealthy")], "second relabel of aa"),
        ([("aa", "group", "", "")], "group without another picture"),
        ([("aa", "apart", "", "plant 7")], "no image has the hash 'plant 7'"),
        ([("aa", "group", "", "f" * 32)], "no image has the hash 'ffff"),
        ([("aa", "apart", "", "AA")], "apart of aa with itself"),
        ([("aa", "drop", "", "bb")], "drop with another picture, 'bb'"),
        ([("aa", "group", "", "bb"), ("bb", "apart", "", "aa")], "apart of a pair that was ruled group before"),
    ],
)
def test_a_ruling_that_cannot_hold_is_one_line(rows: list[tuple[str, str, str]], message: str) -> None:
    with pytest.raises(LeafError, match=r"^data/overrides\.csv: line ") as caught:
        read(*rows)
    assert message in str(caught.value)


def test_a_pair_is_the_same_in_either_order_and_a_group_may_have_a_name() -> None:
    ruled = read(
        ("bb", "group", "", "AA"), ("aa", "group", "", "bb"), ("cc", "apart", "", "aa"), ("cc", "group", "", "P 7")
    )
    assert ruled.group == {("aa", "bb"), ("cc", "P 7")}
    assert ruled.apart == {("aa", "cc")}


def test_two_people_may_say_the_same() -> None:
    rows = [("aa", "drop", ""), ("bb", "relabel", "healthy"), ("bb", "group", "", "cc")]
    assert read(*rows, *rows) == read(*rows)
