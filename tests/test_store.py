"""Writes are atomic, damaged files raise one-line errors, and damaged caches are replaced."""

import io
import multiprocessing
import os
import stat

import numpy as np
import pandas as pd
import pytest

from leaf.edited_tables import read_edited_table
from leaf.errors import LeafError
from leaf.store import (
    load_cached_value,
    new_array,
    parse_yaml,
    read_array,
    read_json,
    read_table,
    replacing,
    save_cached_value,
    write_json,
    write_table,
)
from tests.damaged import assert_read_or_refused


def test_failed_write_keeps_the_old_file_and_removes_the_partial(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail():
        with replacing(path) as partial:
            partial.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("shape", [(3, 2, 2, 3), (0, 2, 2, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_array_round_trip(tmp_path, shape, dtype):
    with new_array(tmp_path / "a.npy", shape, dtype) as array:
        array[...] = 7
    again = read_array(tmp_path / "a.npy")
    assert again.shape == shape
    assert again.dtype == dtype
    assert (again == 7).all()


def test_table_round_trip_keeps_text_that_looks_like_numbers(tmp_path):
    table = pd.DataFrame({"source": ["NA", "007", "a\nb", 'q"q', "", "-x,y"], "distance": [0.1, None, 2, 3, 4, 1 / 3]})
    write_table(table, tmp_path / "t.csv")
    again = read_table(tmp_path / "t.csv", columns=["source"], text=["source"])
    pd.testing.assert_frame_equal(again, table, check_dtype=False)


def test_equal_values_give_identical_json_and_nan_is_null(tmp_path):
    write_json({"b": np.float32(1.5), "a": [float("nan"), np.int64(3)]}, tmp_path / "a.json")
    write_json({"a": [float("inf"), 3], "b": 1.5}, tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_json(tmp_path / "a.json") == {"a": [None, 3], "b": 1.5}


@pytest.mark.parametrize(
    ("read", "text"), [(read_json, "{"), (read_table, ""), (read_array, "not an array"), (read_array, "")]
)
def test_damaged_file_raises_a_one_line_error(tmp_path, read, text):
    path = tmp_path / "broken"
    path.write_text(text)
    with pytest.raises(LeafError, match="broken"):
        read(path)


def test_fuzzed_arrays_load_or_raise_leaf_error(tmp_path):
    path = tmp_path / "a.npy"
    assert_read_or_refused(lambda: read_array(path), path, _changed_arrays(2000))


def _changed_arrays(count):
    rng = np.random.default_rng(0)
    for number in range(count):
        whole = io.BytesIO()
        np.save(whole, np.arange(60, dtype=np.uint8).reshape(5, 12)[: number % 3 * 2])
        data = bytearray(whole.getvalue())
        for place in rng.integers(0, 128, 2):
            data[place] = rng.choice(np.frombuffer(b"0123456789,()[]{}'OMfu|<>\x00\xff", np.uint8))
        yield bytes(data[: rng.integers(1, len(data) + 1)] if number % 5 == 0 else data)


@pytest.mark.parametrize("shape", ["(1000000000000,)", "(0, 99999999999999999999)", "(-1,)", "(7,)" * 500])
def test_header_larger_than_the_file_raises_a_one_line_error(tmp_path, shape):
    path = tmp_path / "a.npy"
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(9))
    with pytest.raises(LeafError, match=r"a\.npy: "):
        read_array(path)


@pytest.mark.parametrize("read", [read_json, read_table, read_array])
def test_error_for_a_missing_file_suggests_dvc_repro(tmp_path, read):
    with pytest.raises(LeafError, match="dvc repro"):
        read(tmp_path / "absent")


EDITED = {
    "semicolons and blank rows": "hash;why\n\n;;\na;b, c\n",
    "excel": "sep=;\r\nhash;why;;\r\na;b, c;;\r\n",
    "capitals and a short row": 'Hash, WHY\na,"b, c"\n',
    "tabs": "hash\twhy\n a \tb, c\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("form", EDITED)
def test_tables_saved_by_spreadsheets_are_read(tmp_path, form, encoding):
    (tmp_path / "a.csv").write_bytes(EDITED[form].encode(encoding))
    assert read_edited_table(tmp_path / "a.csv", ["hash", "why"]).to_numpy().tolist() == [["a", "b, c"]]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no column hash"),
        ("hash\n", "no column why"),
        ("hash,why,why\n", "twice"),
        ("hash,why\na,b,c\n", "line 2: 3 fields"),
        ('hash,why\n\na,"b\n', "line 3: not a readable CSV"),
    ],
)
def test_damaged_edited_table_raises_a_one_line_error(tmp_path, text, why):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(LeafError, match=why):
        read_edited_table(tmp_path / "a.csv", ["hash", "why"])


def test_missing_column_is_reported(tmp_path):
    write_table(pd.DataFrame({"a": [1]}), tmp_path / "t.csv")
    with pytest.raises(LeafError, match=r"no column b\. Available columns: a"):
        read_table(tmp_path / "t.csv", columns=["a", "b"])


@pytest.mark.parametrize("cell", ["x", "-1", "1.5", "", "inf", "1e400"])
def test_non_integer_in_an_integer_column_raises_a_one_line_error(tmp_path, cell):
    (tmp_path / "t.csv").write_text(f"image,split\n0,train\n{cell},test\n")
    with pytest.raises(LeafError, match=r"t\.csv: column image must contain nonnegative integers"):
        read_table(tmp_path / "t.csv", ["image", "split"])


@pytest.mark.parametrize("text", ["", "[]", "{", "7", '{"a": true}', '{"a": "1"}', "{}"])
def test_json_that_does_not_match_its_keys_raises_a_one_line_error(tmp_path, text):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(LeafError, match=r"t\.json: "):
        read_json(tmp_path / "t.json", {"a": (int, float)})


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"a": 1', b"[" * 100_000])
def test_damaged_cache_is_treated_as_empty_and_replaced(tmp_path, monkeypatch, content):
    monkeypatch.setenv("LEAF_STATE", str(tmp_path))
    (tmp_path / "known").mkdir()
    (tmp_path / "known/epochs.json").write_bytes(content)
    assert load_cached_value("epochs", "a", 1.0) is None
    save_cached_value("epochs", "a", 1)
    assert load_cached_value("epochs", "a", 1.0) == 1


def test_unreadable_cache_is_treated_as_empty(tmp_path, monkeypatch):
    monkeypatch.setenv("LEAF_STATE", str(tmp_path))
    (tmp_path / "known/epochs.json").mkdir(parents=True)
    save_cached_value("epochs", "a", 1)
    assert load_cached_value("epochs", "a", 1.0) is None


def _save_twenty(writer):
    for number in range(20):
        save_cached_value("epochs", f"{writer} {number}", number)


def test_concurrent_cache_writers_do_not_lose_values(tmp_path, monkeypatch):
    monkeypatch.setenv("LEAF_STATE", str(tmp_path))
    writers = [multiprocessing.get_context("fork").Process(target=_save_twenty, args=(writer,)) for writer in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read_json(tmp_path / "known/epochs.json")) == 80


def test_link_to_a_tracked_file_is_followed(tmp_path):
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to("real.csv")
    write_table(pd.DataFrame({"a": [1]}), tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text() == "a\n1\n"


def test_link_into_the_dvc_cache_is_replaced(tmp_path):
    (tmp_path / "cached").write_text("cached")
    (tmp_path / "cached").chmod(stat.S_IRUSR | stat.S_IRGRP)
    (tmp_path / "out.csv").symlink_to("cached")
    write_table(pd.DataFrame({"a": [1]}), tmp_path / "out.csv")
    assert (tmp_path / "cached").read_text() == "cached"
    assert not (tmp_path / "out.csv").is_symlink()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_io_error_contains_the_output_path(tmp_path, monkeypatch, call):
    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": ("pathlib.Path.replace",)}[call], fail)
    with pytest.raises(OSError, match=r"out\.json"):
        write_json({}, tmp_path / "out.json")
    assert list(tmp_path.iterdir()) == []


def test_yaml_bomb_is_rejected():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(LeafError, match=r"bomb: .*aliases"):
        parse_yaml("\n".join(lines), "bomb")


def test_yaml_that_contains_itself_is_rejected():
    with pytest.raises(LeafError, match=r"cycle: .*aliases"):
        parse_yaml("a: &a [*a]", "cycle")


def test_cache_that_is_a_pipe_does_not_block(monkeypatch, tmp_path):
    monkeypatch.setenv("LEAF_STATE", str(tmp_path))
    (tmp_path / "known").mkdir()
    os.mkfifo(tmp_path / "known" / "epochs.json")
    assert load_cached_value("epochs", "a", 1.0) is None
    save_cached_value("epochs", "a", 2)
    assert load_cached_value("epochs", "a", 1.0) == 2
