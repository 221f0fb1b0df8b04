"""Test links, pipes and other special files in a data set."""

import os

import pytest

from leaf.errors import LeafError
from leaf.ingest.ingest import ingest
from tests.ingest.kinds_of_images import quarters, saved


@pytest.fixture
def root(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        for number in range(2):
            (tmp_path / "d" / name / f"{number}.png").write_bytes(saved(quarters(), "PNG"))
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "far.png").write_bytes(saved(quarters(), "PNG"))
    return tmp_path / "d"


def read(root, **options):
    return ingest(root, root.parent / "images.npy", "auto", 16, **options)


def test_circular_links_dead_links_and_pipes_are_skipped_and_listed(root):
    (root / "a" / "circle.png").symlink_to("circle.png")
    (root / "a" / "dead.png").symlink_to("nothing.png")
    os.mkfifo(root / "b" / "pipe.png")
    os.mkfifo(root / "b" / "pipe")
    result = read(root)
    assert dict(result.unreadable.to_numpy().tolist()) == {
        "a/circle.png": "too many levels of symbolic links",
        "a/dead.png": "no such file or directory",
        "b/pipe.png": "not a regular file",
    }
    assert any("'b/pipe'" in note for note in result.notes)
    assert len(result.index) == 4


@pytest.mark.parametrize("target", ["../../else/far.png", "../../else"])
def test_link_to_a_target_outside_the_folder_is_rejected_unless_links_are_followed(root, target):
    (root / "a" / "link.png").symlink_to(target)
    with pytest.raises(LeafError, match=r"links=follow"):
        read(root)
    assert len(read(root, links="follow").index) == 5


def test_link_to_a_folder_inside_is_rejected(root):
    (root / "c").symlink_to("b")
    with pytest.raises(LeafError, match="'c'"):
        read(root)


def test_circular_folder_links_are_read_once_and_counted(root):
    (root / "a" / "up").symlink_to("..")
    result = read(root, links="follow")
    assert len(result.index) == 4
    assert any("skipped 1 link " in note and "'a/up'" in note for note in result.notes)
