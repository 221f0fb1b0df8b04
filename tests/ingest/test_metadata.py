"""Test reading labels, groups and splits from a metadata.csv in the folder."""

import pytest

from leaf.errors import LeafError


@pytest.fixture
def metadata(folder):
    """Return a function that writes metadata.csv to the folder of images."""

    def run(text, encoding="utf-8"):
        (folder / "metadata.csv").write_bytes(text.encode(encoding))
        return folder

    return run


@pytest.fixture
def refusal(read):
    def run(root):
        with pytest.raises(LeafError) as caught:
            read(root)
        return str(caught.value)

    return run


TWO = "unhealthy/00.png,unhealthy,p1,test\nhealthy/01.png,healthy,p2,train\n"


def test_labels_groups_and_splits_are_kept(read, metadata):
    index = read(metadata("file,label,group,split\n" + TWO))[0].index
    assert index[["source", "label", "group", "split"]].to_numpy().tolist() == [
        ["healthy/01.png", 0, "p2", "train"],
        ["unhealthy/00.png", 1, "p1", "test"],
    ]


def test_label_column_overrides_the_folder_name(read, metadata):
    index = read(metadata("file,label\nunhealthy/00.png,healthy\nhealthy/01.png,unhealthy\n"))[0].index
    assert index["label"].tolist() == [1, 0]


def test_class_folder_is_the_label_without_a_label_column(read, metadata):
    result, _ = read(metadata("file,group\nunhealthy/00.png,p1\nhealthy/01.png,p2\n"))
    index = result.index.set_index("source")
    assert index.loc["healthy/01.png", ["label", "group"]].tolist() == [0, "p2"]
    assert index.loc["unhealthy/00.png", ["label", "group"]].tolist() == [1, "p1"]
    assert len(index) == 12
    assert result.notes == ["images without a group, because no table lists them: 10"]


def test_file_outside_the_class_folders_is_listed_without_a_label_column(read, metadata, folder):
    (folder / "healthy/01.png").rename(folder / "01.png")
    result, _ = read(metadata("file,group\nunhealthy/00.png,p1\n01.png,p2\n"))
    assert result.unreadable.to_numpy().tolist() == [["01.png", "in no class folder"]]


def test_group_and_split_are_optional(read, metadata):
    index = read(metadata("file,label\nunhealthy/00.png,unhealthy\nhealthy/01.png,healthy\n"))[0].index
    assert set(index["group"]) | set(index["split"]) == {""}


def test_columns_are_read_in_any_order(read, metadata):
    text = "plant,label,file\nx,unhealthy,unhealthy/00.png\ny,healthy,healthy/01.png\n"
    assert len(read(metadata(text))[0].index) == 2


def test_a_byte_order_mark_is_ignored(read, metadata):
    assert len(read(metadata("file,label,group,split\n" + TWO, "utf-8-sig"))[0].index) == 2


def test_images_missing_from_the_table_are_left_out_and_listed(read, metadata):
    result, _ = read(metadata("file,label,group,split\n" + TWO))
    assert len(result.index) == 2
    assert len(result.unreadable) == 10
    assert set(result.unreadable["reason"]) == {"not in metadata.csv"}


@pytest.mark.parametrize(
    "name", ["healthy/99.png", "healthy", "../outside.png", "healthy/../healthy/01.png", "/etc/passwd", "a.txt"]
)
def test_row_without_an_image_is_left_out_and_listed(read, metadata, name):
    text = f"file,label\nunhealthy/00.png,unhealthy\nhealthy/01.png,healthy\n{name},healthy\n"
    out = read(metadata(text))[0].unreadable.set_index("file")
    assert "not found" in out.loc[name, "reason"]
    assert "in metadata.csv" in out.loc[name, "reason"]


def test_row_without_an_image_is_rejected_with_skip_unreadable_off(metadata, read):
    with pytest.raises(LeafError, match=r"99\.png"):
        read(metadata("file,group\nhealthy/99.png,p\nhealthy/01.png,q\n"), skip_unreadable=False)


def test_table_for_another_folder_is_rejected(refusal, metadata):
    line = refusal(metadata("file,label\nx/1.jpg,healthy\nx/2.jpg,unhealthy\n"))
    assert "no row matches an image" in line
    assert "'x/1.jpg', 'x/2.jpg'" in line


def test_val_and_valid_mean_validation(read, metadata):
    text = "file,label,split\nunhealthy/00.png,unhealthy,val\nhealthy/01.png,healthy,Valid\n"
    assert set(read(metadata(text))[0].index["split"]) == {"validation"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("healthy/01.png,healthy,,later", "split 'later'"),
        ("healthy/01.png,healthy", "the header has 4"),
        ("healthy/01.png,healthy,,,,x", "the header has 4"),
        (",healthy,,", "no file name"),
        ("unhealthy/00.png,unhealthy,,", "appears twice"),
        ("./unhealthy/00.png,unhealthy,,", "appears twice"),
        ("a\0b.png,healthy,,", "metadata.csv"),
    ],
)
def test_error_for_an_invalid_row_names_the_file_and_problem(refusal, metadata, row, words):
    line = refusal(metadata(f"file,label,group,split\nunhealthy/00.png,unhealthy,p1,test\n{row}\n"))
    assert "metadata.csv" in line
    assert words in line


def test_missing_columns_are_reported(refusal, metadata):
    line = refusal(metadata("name,class\na,b\n"))
    assert "(recognized names: file, filename, " in line


def test_an_empty_metadata_file_is_rejected(refusal, metadata):
    assert "Available columns: none." in refusal(metadata(""))


def test_metadata_that_is_not_text_is_rejected(refusal, folder):
    (folder / "metadata.csv").write_bytes(b"file,label\0\n" + bytes(300))
    assert "cannot be decoded as UTF-8, UTF-16 or Latin-1" in refusal(folder)


def test_file_behind_a_link_to_a_folder_outside_is_rejected(refusal, metadata, tmp_path):
    root = metadata("file,label\nhealthy/01.png,healthy\nout/secret.png,unhealthy\n")
    (tmp_path / "elsewhere").mkdir()
    (root / "healthy" / "01.png").rename(tmp_path / "elsewhere" / "secret.png")
    (root / "out").symlink_to(tmp_path / "elsewhere")
    (root / "healthy" / "01.png").write_bytes(b"x")
    assert "is a link to a target outside the data set" in refusal(root)


def test_link_to_metadata_outside_the_folder_is_rejected(refusal, folder, tmp_path):
    (tmp_path / "secret").write_text("root:x:0\n")
    (folder / "metadata.csv").symlink_to(tmp_path / "secret")
    assert "is a link to a target outside the data set" in refusal(folder)
