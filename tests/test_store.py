"""Outputs are written whole or not at all."""

import io

import numpy as np
import pandas as pd
import pytest

from leaf.errors import LeafError
from leaf.store import new_array, read_array, read_json, read_table, replacing, write_json, write_table
from tests.damaged import read_or_refused


def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path):
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
def test_an_array_comes_back_as_written(tmp_path, shape, dtype):
    with new_array(tmp_path / "a.npy", shape, dtype) as array:
        array[...] = 7
    again = read_array(tmp_path / "a.npy")
    assert again.shape == shape
    assert again.dtype == dtype
    assert (again == 7).all()


def test_a_table_comes_back_as_written_also_with_names_that_look_like_something_else(tmp_path):
    table = pd.DataFrame({"source": ["NA", "007", "a\nb", 'q"q', "", "-x,y"], "distance": [0.1, None, 2, 3, 4, 1 / 3]})
    write_table(table, tmp_path / "t.csv")
    again = read_table(tmp_path / "t.csv", columns=["source"], text=["source"])
    pd.testing.assert_frame_equal(again, table, check_dtype=False)


def test_equal_json_is_an_equal_file_and_not_a_number_is_null(tmp_path):
    write_json({"b": np.float32(1.5), "a": [float("nan"), np.int64(3)]}, tmp_path / "a.json")
    write_json({"a": [float("inf"), 3], "b": 1.5}, tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_json(tmp_path / "a.json") == {"a": [None, 3], "b": 1.5}


@pytest.mark.parametrize(
    ("read", "text"), [(read_json, "{"), (read_table, ""), (read_array, "not an array"), (read_array, "")]
)
def test_a_broken_file_is_one_line(tmp_path, read, text):
    path = tmp_path / "broken"
    path.write_text(text)
    with pytest.raises(LeafError, match="broken"):
        read(path)


def test_thousands_of_changed_arrays_are_read_or_refused_in_one_line(tmp_path):
    path = tmp_path / "a.npy"
    read_or_refused(lambda: read_array(path), path, _changed_arrays(2000))


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
def test_a_header_that_names_more_than_the_file_holds_is_one_line(tmp_path, shape):
    path = tmp_path / "a.npy"
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(9))
    with pytest.raises(LeafError, match=r"a\.npy: not a whole \.npy array"):
        read_array(path)


@pytest.mark.parametrize("read", [read_json, read_table, read_array])
def test_a_missing_file_says_how_to_make_it(tmp_path, read):
    with pytest.raises(LeafError, match="dvc repro"):
        read(tmp_path / "absent")


def test_a_missing_column_is_named(tmp_path):
    write_table(pd.DataFrame({"a": [1]}), tmp_path / "t.csv")
    with pytest.raises(LeafError, match="no column b; it has a"):
        read_table(tmp_path / "t.csv", columns=["a", "b"])
