"""Changes to the decision files are atomic, keep rows written by other programs, and merge in git."""

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
from leaf.review import decision_files
from leaf.review.decision_files import FILES, OVERRIDES, REVIEWED, read_rows, summary

from .conftest import git

TEXT = FILES[OVERRIDES]
INDEX = pd.DataFrame({"source": ["leaf.png"], "file_hash": ["ff"], "hash": ["aa"]})


def change(folder: Path, rows: list, remove: list = (), file: str = OVERRIDES) -> list:
    return decision_files.change(folder, file, INDEX, rows, remove)


def row(image: str, ruling: str = "drop", other: str = "", **cells: str) -> dict[str, str]:
    return {**dict.fromkeys(TEXT, ""), "hash": image, "ruling": ruling, "other": other, "who": "Ada", **cells}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / OVERRIDES


def test_rows_are_sorted_by_hash_one_line_each(path: Path) -> None:
    for image in ("cc", "aa", "bb"):
        change(path.parents[1], [row(image, why="a, b")])
    assert path.read_text() == (
        "hash,ruling,label,who,why,date,run,other,file\n"
        'aa,drop,,Ada,"a, b",,,,\nbb,drop,,Ada,"a, b",,,,\ncc,drop,,Ada,"a, b",,,,\n'
    )


def test_later_decision_replaces_the_earlier_one_of_its_kind(path: Path) -> None:
    first, second = row("aa"), row("aa", "keep")
    change(path.parents[1], [first])
    assert change(path.parents[1], [second, row("aa", "relabel", label="healthy")]) == [first]
    assert [each["ruling"] for each in read_rows(path.parents[1], OVERRIDES)] == ["keep", "relabel"]


def test_all_names_of_an_image_are_one_key(path: Path) -> None:
    for name in ("leaf.png", "FF", "aa"):
        change(path.parents[1], [row(name), row("bb", "group", name)])
    assert [(each["hash"], each["other"]) for each in read_rows(path.parents[1], OVERRIDES)] == [
        ("aa", ""),
        ("bb", "aa"),
    ]


def test_pair_is_one_key_in_either_order(path: Path) -> None:
    change(path.parents[1], [row("aa", "group", "bb")])
    assert len(change(path.parents[1], [row("bb", "apart", "aa")])) == 1
    assert [each["ruling"] for each in read_rows(path.parents[1], OVERRIDES)] == ["apart"]


def test_undo_restores_the_replaced_row(path: Path) -> None:
    change(path.parents[1], [row("aa")])
    before = path.read_bytes()
    replaced = change(path.parents[1], [row("aa", "keep")])
    change(path.parents[1], replaced, [row("aa", "keep")])
    assert path.read_bytes() == before


def test_undo_of_a_row_that_changed_meanwhile_is_rejected(path: Path) -> None:
    change(path.parents[1], [row("aa")])
    change(path.parents[1], [row("aa", who="Bob")])
    with pytest.raises(LeafError, match=r"\baa\b"):
        change(path.parents[1], [], [row("aa")])
    assert read_rows(path.parents[1], OVERRIDES)[0]["who"] == "Bob"


def test_rows_of_an_old_file_and_additional_columns_are_kept(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("hash,ruling,label,who,why,seen at\nbb,drop,,Bob,blurred,the lake\n")
    change(path.parents[1], [row("aa")])
    assert path.read_text().splitlines() == [
        "hash,ruling,label,who,why,date,run,other,file,seen at",
        "aa,drop,,Ada,,,,,,",
        "bb,drop,,Bob,blurred,,,,,the lake",
    ]


def _many(path: Path, name: str, count: int) -> None:
    for number in range(count):
        change(path.parents[1], [row(f"{name}{number:03}")])


def test_concurrent_writers_lose_no_row(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_many, args=(path, name, 25)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read_rows(path.parents[1], OVERRIDES)) == 75


def test_killed_writer_loses_at_most_the_current_row(path: Path) -> None:
    writer = multiprocessing.get_context("fork").Process(target=_many, args=(path, "a", 100_000))
    writer.start()
    while not path.exists() or path.stat().st_size < 1000:
        time.sleep(0.01)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    written = [each["hash"] for each in read_rows(path.parents[1], OVERRIDES)]
    assert written == [f"a{number:03}" for number in range(len(written))]
    change(path.parents[1], [row("zz")])  # the lock was released when its holder died
    assert len(read_rows(path.parents[1], OVERRIDES)) == len(written) + 1


def test_lock_timeout_gives_a_one_line_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leaf.review.decision_files._LOCK_SECONDS", 0.05)
    path.parent.mkdir()
    with (
        filelock.FileLock(path.with_name(".overrides.csv.lock")),
        pytest.raises(LeafError, match=r"overrides\.csv: locked by another program"),
    ):
        change(path.parents[1], [row("aa")])


def test_two_clones_merge_without_conflict(reviewed: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(reviewed, tmp_path / "other"))
    for folder, images in ((reviewed, ("bb", "dd")), (other, ("aa", "cc"))):
        change(folder, [row(image) for image in images])
        seen = {**dict.fromkeys(FILES[REVIEWED], ""), "hash": images[0], "verdict": "seen", "question": "label"}
        change(folder, [seen], file=REVIEWED)
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", "decisions")
    git(reviewed, "pull", "-q", "--no-rebase", "--no-edit", str(other), "main")
    assert {each["hash"] for each in read_rows(reviewed, OVERRIDES)} == {"aa", "bb", "cc", "dd"}
    assert len(read_rows(reviewed, REVIEWED)) == 2


def test_summary_counts_new_and_undone_decisions() -> None:
    old = [row("aa"), row("bb")]
    new = [row("aa"), row("cc"), row("dd", "relabel", label="healthy"), row("ee", "group", "ff")]
    assert summary(new, old) == "3 decisions: 1 dropped, 1 relabeled, 1 grouped, 1 undone"
    assert summary(old, old) == "0 decisions"
