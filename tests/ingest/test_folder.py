"""Test reading a folder of image files."""

import os

import numpy as np
import pytest
from PIL import Image

from leaf.errors import LeafError
from leaf.ingest.ingest import ingest


def put(root, name, value=100, size=16):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(path)


@pytest.fixture
def refusal(read):
    def run(root, **options):
        with pytest.raises(LeafError) as caught:
            read(root, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return run


def test_a_folder_per_class_gives_each_file_its_label(read, folder):
    index = read(folder)[0].index
    assert len(index) == 12
    assert [("healthy", "unhealthy")[label] for label in index["label"]] == index["source"].str.split("/").str[
        0
    ].tolist()


def test_files_are_numbered_in_the_order_of_their_names(read, folder):
    index = read(folder)[0].index
    assert index["source"].tolist() == sorted(index["source"])
    assert index["image"].tolist() == list(range(12))


def test_each_row_matches_its_file(read, folder):
    result, stored = read(folder)
    for row in result.index.itertuples():
        np.testing.assert_array_equal(stored[row.image], np.asarray(Image.open(folder / row.source)))


def test_folders_within_a_class_are_read_too(read, folder):
    put(folder, "healthy/2023/may/one.png")
    assert "healthy/2023/may/one.png" in read(folder)[0].index["source"].tolist()


def test_suffixes_ignore_case(read, folder):
    put(folder, "healthy/IMG.PNG")
    assert "healthy/IMG.PNG" in read(folder)[0].index["source"].tolist()


def test_other_and_hidden_files_are_skipped(read, folder):
    (folder / "healthy" / "Thumbs.db").write_text("x")
    (folder / "healthy" / "._00.png").write_text("x")
    (folder / "README.txt").write_text("x")
    (folder / ".git").mkdir()
    assert len(read(folder)[0].index) == 12


@pytest.mark.parametrize(
    "names", [("train", "validation", "test"), ("Train", "val", "TEST"), ("train", "valid", "test")]
)
def test_train_validation_and_test_folders_are_kept_as_the_split(read, tmp_path, names):
    for name in names:
        put(tmp_path / "d", f"{name}/healthy/a.png", 50)
        put(tmp_path / "d", f"{name}/unhealthy/b.png", 90)
    index = read(tmp_path / "d")[0].index
    given = dict(zip(index["source"].str.split("/").str[0], index["split"], strict=True))
    assert given == dict(zip(names, ("train", "validation", "test"), strict=True))


def test_unknown_class_folder_is_reported_with_the_valid_classes(refusal, folder):
    put(folder, "sick/a.png")
    line = refusal(folder)
    assert "'sick' (1 image, first: sick/a.png): not in" in line
    assert "healthy, unhealthy" in line


def test_an_unknown_class_folder_inside_a_split_is_reported(refusal, tmp_path):
    put(tmp_path / "d", "train/sick/a.png")
    assert "'sick' (1 image, first: train/sick/a.png): not in" in refusal(tmp_path / "d")


def test_image_outside_the_class_folders_is_skipped_and_listed(read, folder):
    put(folder, "lost.png")
    result, _ = read(folder)
    assert result.unreadable.to_numpy().tolist() == [["lost.png", "in no class folder"]]
    assert len(result.index) == 12


def test_an_empty_folder_is_rejected(refusal, tmp_path):
    (tmp_path / "d").mkdir()
    assert "no image files" in refusal(tmp_path / "d")


def test_class_folders_without_images_are_rejected(refusal, tmp_path):
    (tmp_path / "d" / "healthy").mkdir(parents=True)
    (tmp_path / "d" / "unhealthy").mkdir()
    assert "no image files" in refusal(tmp_path / "d")


def test_single_class_is_rejected(refusal, tmp_path):
    put(tmp_path / "d", "healthy/a.png")
    assert "no image of the class unhealthy" in refusal(tmp_path / "d")


def test_unreadable_image_is_skipped_and_listed(read, folder):
    (folder / "healthy" / "05b.jpg").write_bytes(b"not an image")
    result, stored = read(folder)
    assert len(stored) == len(result.index) == 12
    assert result.unreadable["file"].tolist() == ["healthy/05b.jpg"]
    assert "healthy/05b.jpg" not in result.index["source"].tolist()
    assert result.index["image"].tolist() == list(range(12))


def test_truncated_image_is_skipped_with_the_reason(read, folder):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(folder / "healthy" / "t.jpg")
    raw = (folder / "healthy" / "t.jpg").read_bytes()
    (folder / "healthy" / "t.jpg").write_bytes(raw[: len(raw) // 2])
    assert "truncated" in read(folder)[0].unreadable["reason"].tolist()[0]


def test_unreadable_image_is_rejected_with_skip_unreadable_off(refusal, folder):
    (folder / "healthy" / "05b.jpg").write_bytes(b"not an image")
    line = refusal(folder, skip_unreadable=False)
    assert "05b.jpg: cannot be read" in line


def test_class_with_only_unreadable_images_is_rejected(refusal, folder):
    for path in (folder / "unhealthy").iterdir():
        path.write_bytes(b"x")
    assert "no image of the class unhealthy" in refusal(folder)


def test_files_in_several_batches_keep_their_order(read, tmp_path):
    for number in range(300):
        put(tmp_path / "d", f"{('healthy', 'unhealthy')[number % 2]}/{number:03}.png", number % 251, 8)
    result, stored = read(tmp_path / "d", size=8)
    expected = [int(source[-7:-4]) % 251 for source in result.index["source"]]
    assert stored[:, 0, 0, 0].tolist() == expected


STRANGE = [
    "a\nb.png",
    "-rf.png",
    "a,b.png",
    'a"b.png',
    "a'b.png",
    " a .png",
    "ä日本.png",
    "$(id).png",
    "NA.png",
    "a;b|c&.png",
]


@pytest.mark.parametrize("name", STRANGE)
def test_unusual_name_is_read_and_kept(read, folder, name):
    put(folder, f"healthy/{name}")
    assert f"healthy/{name}" in read(folder)[0].index["source"].tolist()


def test_unusual_names_are_preserved_in_the_table(read, folder, tmp_path):
    from leaf.store import read_table, write_table

    for name in STRANGE:
        put(folder, f"healthy/{name}")
    index = read(folder)[0].index
    write_table(index, tmp_path / "index.csv")
    again = read_table(tmp_path / "index.csv", text=["source", "group", "split", "hash", "flags"])
    assert again["source"].tolist() == index["source"].tolist()


def test_name_that_is_not_utf8_gives_a_one_line_error(refusal, folder):
    (folder / "healthy" / os.fsdecode(b"\xff\xfe.png")).write_bytes(b"x")
    assert r"\udcff\udcfe.png' is not UTF-8" in refusal(folder)


def test_name_with_a_carriage_return_is_rejected(refusal, folder):
    put(folder, "healthy/a\rb.png")
    assert r"a\rb.png' contains a carriage return" in refusal(folder)


def test_link_to_a_file_outside_the_folder_is_rejected(refusal, folder, tmp_path):
    put(tmp_path, "secret.png")
    (folder / "healthy" / "link.png").symlink_to(tmp_path / "secret.png")
    assert "'healthy/link.png' is a link to a target outside the data set" in refusal(folder)


def test_a_link_to_a_folder_is_rejected(refusal, folder):
    (folder / "healthy" / "again").symlink_to(folder / "unhealthy")
    assert "link to a folder" in refusal(folder)


def test_a_link_to_a_folder_outside_is_rejected(refusal, folder, tmp_path):
    put(tmp_path, "other/secret.png")
    (folder / "healthy" / "more").symlink_to(tmp_path / "other")
    assert "is a link to a target outside" in refusal(folder)


def test_a_link_within_the_folder_is_read(read, folder):
    (folder / "healthy" / "link.png").symlink_to(folder / "unhealthy" / "00.png")
    assert "healthy/link.png" in read(folder)[0].index["source"].tolist()


def test_data_set_itself_can_be_a_link(read, folder, tmp_path):
    (tmp_path / "linked").symlink_to(folder)
    assert len(read(tmp_path / "linked")[0].index) == 12


def test_a_pipe_among_the_images_does_not_block(read, folder):
    os.mkfifo(folder / "healthy" / "pipe.png")
    assert len(read(folder)[0].index) == 12


@pytest.mark.full  # tests/faults/test_memory.py runs the stage on the same number of files
@pytest.mark.slow
def test_memory_is_bounded_for_twenty_thousand_files(tmp_path):
    import tracemalloc

    put(tmp_path / "d", "healthy/0.png", 30, 96)
    put(tmp_path / "d", "unhealthy/0.png", 60, 96)
    for number in range(1, 10_000):
        for name in ("healthy", "unhealthy"):
            os.link(tmp_path / "d" / name / "0.png", tmp_path / "d" / name / f"{number}.png")
    tracemalloc.start()
    result = ingest(tmp_path / "d", tmp_path / "images.npy", ("healthy", "unhealthy"), 96)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(result.index) == 20_000
    assert peak < 100e6  # the stored images take 553 MB


@pytest.mark.realdata
def test_the_real_folder_of_leaves_by_plant_keeps_its_groups(shared, tmp_path):
    index = ingest(shared / "leaves_by_plant", tmp_path / "images.npy", ("healthy", "unhealthy"), 96).index
    assert index["label"].value_counts().to_dict() == {0: 677, 1: 569}
    assert index["group"].nunique() == 205
