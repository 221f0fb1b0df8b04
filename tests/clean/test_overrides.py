from dataclasses import replace

import pandas as pd
import pytest

from leaf.clean import decisions
from leaf.errors import LeafError

CLASSES = ("healthy", "unhealthy")
INDEX = pd.DataFrame(
    {
        "source": ["healthy/1.jpg", "healthy/2.jpg", "sick/3.jpg", "sick/copy of 3.jpg"],
        "file_hash": ["f1", "f2", "f3", "f4"],
        "hash": ["aa", "bb", "cc", "cc"],
    }
)


def read(*rows: tuple[str, ...]) -> decisions.Overrides:
    """Read overrides from rows of hash, ruling, label and optionally other."""
    cells = [(*row[:3], "A. Person", "looked", *row[3:]) for row in rows]
    columns = [*decisions.COLUMNS, "other"]
    table = pd.DataFrame(cells, columns=columns[: max(map(len, cells))])
    return decisions.read_overrides(table, INDEX, CLASSES)


def test_overrides_are_read_with_class_indices() -> None:
    overrides = read(
        ("aa", "keep", ""), ("BB ", " drop", ""), ("cc", "relabel", "unhealthy"), ("aa", "relabel", "healthy")
    )
    assert overrides == decisions.Overrides(frozenset({"aa"}), frozenset({"bb"}), {"cc": 1, "aa": 0}, applied=4)


def test_image_is_identified_by_file_hash_source_or_pixel_hash() -> None:
    overrides = read(("F1", "keep", ""), ("healthy/2.jpg", "drop", ""), ("sick/copy of 3.jpg", "apart", "", "aa"))
    assert overrides == decisions.Overrides(
        frozenset({"aa"}), frozenset({"bb"}), {}, apart=frozenset({("aa", "cc")}), applied=3
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("dd", "drop", ""), "no image has the file_hash, source or hash 'dd'"),
        (("aa", "apart", "", "plant 7"), "no image has the file_hash, source or hash 'plant 7'"),
        (("aa", "group", "", "f" * 32), "no image has the file_hash, source or hash 'ffff"),
        (("aa", "relabel", "sick"), "no class 'sick'; the classes are healthy, unhealthy"),
    ],
)
def test_override_of_an_unknown_image_or_class_is_skipped_and_reported(row: tuple[str, ...], message: str) -> None:
    overrides = read(("bb", "keep", ""), row)
    assert (overrides.applied, len(overrides.missed)) == (1, 1)
    assert overrides.missed[0].startswith(f"data/overrides.csv: line 3: {message}")
    assert replace(overrides, applied=0, missed=()) == decisions.Overrides(frozenset({"bb"}), frozenset(), {})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("aa", "remove", "")], "'remove'; valid: keep, drop, relabel, group, apart"),
        ([("aa", "relabel", "")], "relabel requires a label"),
        ([("aa", "drop", "healthy")], "drop does not accept a label ('healthy')"),
        ([("aa", "keep", ""), ("aa", "drop", "")], "drop of aa contradicts an earlier line"),
        ([("aa", "relabel", "healthy"), ("aa", "relabel", "unhealthy")], "relabel of aa contradicts an earlier line"),
        ([("aa", "group", "", "")], "group requires a second image"),
        ([("aa", "apart", "", "AA")], "apart pairs aa with itself"),
        ([("aa", "drop", "", "bb")], "drop does not accept a second image ('bb')"),
        ([("aa", "group", "", "bb"), ("bb", "apart", "", "aa")], "apart of bb contradicts an earlier line"),
    ],
)
def test_invalid_override_is_rejected_with_its_line_number(rows: list[tuple[str, str, str]], message: str) -> None:
    with pytest.raises(LeafError, match=r"^data/overrides\.csv: line ") as caught:
        read(*rows)
    assert message in str(caught.value)


def test_pairs_are_unordered_and_groups_can_have_names() -> None:
    overrides = read(
        ("bb", "group", "", "AA"), ("aa", "group", "", "bb"), ("cc", "apart", "", "aa"), ("cc", "group", "", "P 7")
    )
    assert overrides.group == {("aa", "bb"), ("cc", "P 7")}
    assert overrides.apart == {("aa", "cc")}


def test_equal_overrides_by_two_people_are_accepted() -> None:
    rows = [("aa", "drop", ""), ("bb", "relabel", "healthy"), ("bb", "group", "", "cc")]
    assert replace(read(*rows, *rows), applied=3) == read(*rows)


def test_override_by_name_still_applies_after_a_folder_is_renamed() -> None:
    assert read(("old/healthy/2.jpg", "drop", ""), ("rust/3.jpg", "keep", "")).applied == 2
    assert read(("sick/2.jpg", "drop", "")).missed  # the folder still exists, so it was not renamed
