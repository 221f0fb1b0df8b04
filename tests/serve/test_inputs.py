"""`leaf predict` expands its arguments to image files."""

import io
import os

import pytest

from leaf.errors import LeafError
from leaf.serve.predict import expand


def expanded(*arguments, listed=b""):
    return expand(arguments, io.BytesIO(listed))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/2.jpg", "a/1.PNG", "a/deep/3.jpg", "a/notes.txt", "a/.hidden.jpg", "odd", "-dash.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()


def test_folder_expands_to_all_images_below_in_order():
    assert expanded("a") == ["a/1.PNG", "a/2.jpg", "a/deep/3.jpg"]


def test_pattern_is_expanded():
    assert expanded("a/**/*.jpg") == ["a/2.jpg", "a/deep/3.jpg"]


def test_dash_reads_a_list_from_standard_input():
    assert expanded("-", listed=b"a/2.jpg\n\nodd\n") == ["a/2.jpg", "odd"]


LISTS = {
    "crlf": "a/2.jpg\r\nblätter.jpg\r\n".encode(),
    "print0": "a/2.jpg\0blätter.jpg\0".encode(),
    "bom": "a/2.jpg\nblätter.jpg".encode("utf-8-sig"),
    "utf-16": "a/2.jpg\r\nblätter.jpg\r\n".encode("utf-16"),
    "utf-16-le": "a/2.jpg\nblätter.jpg\n".encode("utf-16-le"),
    "utf-16-be": "a/2.jpg\nblätter.jpg\n".encode("utf-16-be"),
}


@pytest.mark.parametrize("encoding", LISTS)
def test_list_on_standard_input_is_read_in_each_format(encoding):
    assert expanded("-", listed=LISTS[encoding]) == ["a/2.jpg", "blätter.jpg"]


def test_name_on_standard_input_can_have_any_encoding():
    assert expanded("-", listed=b"bl\xe4tter.jpg\n") == [os.fsdecode(b"bl\xe4tter.jpg")]


@pytest.mark.parametrize("data", [b"\xff\xfea\0\n", b"\xff\xd8\xff\xe0\0\0", b"x" * 5000])
def test_standard_input_without_a_list_is_rejected(data):
    with pytest.raises(LeafError, match="-: standard input"):
        expanded("-", listed=data)


def test_named_file_requires_no_suffix():
    assert expanded("odd") == ["odd"]


def test_missing_file_is_kept_in_the_list():
    assert expanded("missing.jpg", "odd") == ["missing.jpg", "odd"]


def test_repeated_image_is_listed_once():
    assert expanded("a/2.jpg", "a") == ["a/2.jpg", "a/1.PNG", "a/deep/3.jpg"]


def test_name_can_start_with_a_dash():
    assert expanded("-dash.jpg") == ["-dash.jpg"]


def test_circular_link_is_not_followed(tmp_path):
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert expanded("a") == ["a/1.PNG", "a/2.jpg", "a/deep/3.jpg"]


def test_pattern_without_a_match_is_rejected():
    with pytest.raises(LeafError, match=r"\*\.webp: "):
        expanded("*.webp")


def test_folder_without_images_is_rejected(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(LeafError, match=r"empty: no image"):
        expanded("empty")
