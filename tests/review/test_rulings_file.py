"""The one writer: whole files, foreign rows kept, two people merged by git."""

import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import filelock
import pandas as pd
import pytest

from leaf.errors import LeafError
from leaf.review.rulings import FILES, OVERRIDES, REVIEWED, change, read_rows, summary

from .conftest import git

TEXT = FILES[OVERRIDES]
INDEX = pd.DataFrame({"source": ["leaf.png"], "file_hash": ["ff"], "hash": ["aa"]})


def row(picture: str, ruling: str = "drop", other: str = "", **cells: str) -> dict[str, str]:
    return {**dict.fromkeys(TEXT, ""), "hash": picture, "ruling": ruling, "other": other, "who": "Ada", **cells}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / OVERRIDES


def test_rows_are_sorted_by_hash_one_line_each(path: Path) -> None:
    for picture in ("cc", "aa", "bb"):
        change(path, TEXT, INDEX, [row(picture, why="a, b")])
    assert path.read_text() == (
        "hash,ruling,label,who,why,date,run,other\n"
        'aa,drop,,Ada,"a, b",,,\nbb,drop,,Ada,"a, b",,,\ncc,drop,,Ada,"a, b",,,\n'
    )


def test_a_later_ruling_of_the_same_kind_takes_the_place_of_the_first(path: Path) -> None:
    first, second = row("aa"), row("aa", "keep")
    change(path, TEXT, INDEX, [first])
    assert change(path, TEXT, INDEX, [second, row("aa", "relabel", label="healthy")]) == [first]
    assert [each["ruling"] for each in read_rows(path, TEXT)] == ["keep", "relabel"]


def test_a_picture_is_one_under_each_of_its_names(path: Path) -> None:
    for name in ("leaf.png", "FF", "aa"):
        change(path, TEXT, INDEX, [row(name), row("bb", "group", name)])
    assert [(each["hash"], each["other"]) for each in read_rows(path, TEXT)] == [("aa", ""), ("bb", "aa")]


def test_a_pair_is_one_in_either_order(path: Path) -> None:
    change(path, TEXT, INDEX, [row("aa", "group", "bb")])
    assert len(change(path, TEXT, INDEX, [row("bb", "apart", "aa")])) == 1
    assert [each["ruling"] for each in read_rows(path, TEXT)] == ["apart"]


def test_undo_sets_back_what_was_replaced(path: Path) -> None:
    change(path, TEXT, INDEX, [row("aa")])
    before = path.read_bytes()
    replaced = change(path, TEXT, INDEX, [row("aa", "keep")])
    change(path, TEXT, INDEX, replaced, [row("aa", "keep")])
    assert path.read_bytes() == before


def test_undo_of_what_another_hand_changed_is_refused(path: Path) -> None:
    change(path, TEXT, INDEX, [row("aa")])
    change(path, TEXT, INDEX, [row("aa", who="Bob")])
    with pytest.raises(LeafError, match="the row on aa was changed by another hand"):
        change(path, TEXT, INDEX, [], [row("aa")])
    assert read_rows(path, TEXT)[0]["who"] == "Bob"


def test_an_old_file_and_a_column_of_ones_own_stay(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("hash,ruling,label,who,why,seen at\nbb,drop,,Bob,blurred,the lake\n")
    change(path, TEXT, INDEX, [row("aa")])
    assert path.read_text().splitlines() == [
        "hash,ruling,label,who,why,date,run,other,seen at",
        "aa,drop,,Ada,,,,,",
        "bb,drop,,Bob,blurred,,,,the lake",
    ]


def _many(path: Path, name: str, count: int) -> None:
    for number in range(count):
        change(path, TEXT, INDEX, [row(f"{name}{number:03}")])


def test_writers_at_the_same_time_lose_nothing(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_many, args=(path, name, 25)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read_rows(path, TEXT)) == 75


def test_a_kill_leaves_a_whole_file_with_all_but_the_one_in_flight(path: Path) -> None:
    writer = multiprocessing.get_context("fork").Process(target=_many, args=(path, "a", 100_000))
    writer.start()
    while not path.exists() or path.stat().st_size < 1000:
        time.sleep(0.01)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    written = [each["hash"] for each in read_rows(path, TEXT)]
    assert written == [f"a{number:03}" for number in range(len(written))]
    change(path, TEXT, INDEX, [row("zz")])  # the lock died with its holder
    assert len(read_rows(path, TEXT)) == len(written) + 1


def test_a_lock_that_is_not_given_up_is_one_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leaf.review.rulings._PATIENCE", 0.05)
    path.parent.mkdir()
    with filelock.FileLock(path.with_name(".overrides.csv.lock")), pytest.raises(LeafError, match="holds its lock"):
        change(path, TEXT, INDEX, [row("aa")])


def test_two_clones_merge_without_conflict(reviewed: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(reviewed, tmp_path / "other"))
    for folder, pictures in ((reviewed, ("bb", "dd")), (other, ("aa", "cc"))):
        change(folder / OVERRIDES, TEXT, INDEX, [row(picture) for picture in pictures])
        seen = {**dict.fromkeys(FILES[REVIEWED], ""), "hash": pictures[0], "verdict": "seen", "question": "label"}
        change(folder / REVIEWED, FILES[REVIEWED], INDEX, [seen])
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", "rulings")
    git(reviewed, "pull", "-q", "--no-rebase", "--no-edit", str(other), "main")
    assert {each["hash"] for each in read_rows(reviewed / OVERRIDES, TEXT)} == {"aa", "bb", "cc", "dd"}
    assert len(read_rows(reviewed / REVIEWED, FILES[REVIEWED])) == 2


def test_the_summary_counts_what_is_new_and_what_was_taken_back() -> None:
    old = [row("aa"), row("bb")]
    new = [row("aa"), row("cc"), row("dd", "relabel", label="healthy"), row("ee", "group", "ff")]
    assert summary(new, old) == "3 rulings: 1 dropped, 1 relabelled, 1 group, 1 taken back"
    assert summary(old, old) == "0 rulings"
