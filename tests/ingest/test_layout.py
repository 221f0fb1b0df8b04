"""Test how the class, group and split of each image are derived from folders and tables."""

import numpy as np
import pytest
from PIL import Image

from leaf.errors import LeafError


@pytest.fixture
def made(tmp_path):
    """Return a function that creates a folder of small, distinct images and tables."""

    def run(*names, **texts):
        random = np.random.default_rng(0)
        for name in names:
            path = tmp_path / "d" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
        for name, text in texts.items():
            (tmp_path / "d" / f"{name}.csv").write_text(text)
        return tmp_path / "d"

    return run


def told(read, root, *columns, **options):
    result, _ = read(root, 8, "auto", **options)
    names = result.classes["name"].tolist()
    table = result.index.assign(name=[names[label] for label in result.index["label"]])
    return dict(zip(table["source"], table[list(columns)].to_numpy().tolist(), strict=True)), result


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "VALID", "test_images"), ("trn", "dev", "Test set")]
)
def test_split_folders_above_classes_are_detected_by_common_names(read, made, names):
    files = [f"{split}/{name}/1.png" for split in names for name in "ab"]
    index, _ = told(read, made(*files), "name", "split")
    assert [index[file] for file in files] == [
        [name, split] for split in ("train", "validation", "test") for name in "ab"
    ]


def test_split_folders_below_classes_are_detected(read, made):
    index, _ = told(read, made("a/train/1.png", "a/test/2.png", "b/train/3.png", "b/test/4.png"), "name", "split")
    assert index["b/test/4.png"] == ["b", "test"]


def test_folder_next_to_split_folders_is_rejected(read, made):
    with pytest.raises(LeafError, match=r"'test', 'train'.*'extra'"):
        read(made("train/a/1.png", "test/b/2.png", "extra/a/3.png"), 8, "auto")


def test_table_with_only_groups_keeps_folder_splits(read, made):
    root = made("train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png", metadata="file,group\n1.png,p\n3,q\n")
    index, _ = told(read, root, "name", "group", "split")
    assert index == {
        "train/a/1.png": ["a", "p", "train"],
        "train/b/2.png": ["b", "", "train"],
        "test/a/3.png": ["a", "q", "test"],
        "test/b/4.png": ["b", "", "test"],
    }


def test_split_of_the_table_overrides_the_folders_and_is_counted(read, made):
    root = made("train/a/1.png", "train/b/2.png", "test/a/3.png", metadata="file,split\n1.png,test\n2.png,train\n")
    index, result = told(read, root, "split")
    assert index["train/a/1.png"] == ["test"]
    assert "images with different splits in the table and the folders: 1; the table is used" in result.notes


def test_table_outside_the_folder_is_read(read, made, tmp_path):
    root = made("1.png", "2.png", "deep/3.png")
    (tmp_path / "known.tsv").write_text("image_id\tclass\tplant\n1\ta\tp\n2\tb\t\n3.png\ta\tNA\n")
    index, _ = told(read, root, "name", "group", labels=tmp_path / "known.tsv")
    assert index == {"1.png": ["a", "p"], "2.png": ["b", ""], "deep/3.png": ["a", ""]}


def test_unused_table_is_reported(read, made, tmp_path):
    root = made("1.png", "2.png", metadata="file,label\n1.png,x\n2.png,y\n")
    (tmp_path / "known.csv").write_text("file,label\n1.png,a\n2.png,b\n")
    index, result = told(read, root, "name", labels=tmp_path / "known.csv")
    assert index["1.png"] == ["a"]
    assert "metadata.csv in the folder is not read" in result.notes[0]


def test_each_split_can_have_its_own_metadata(read, made):
    root = made("train/1.png", "train/2.png", "test/1.png", "test/2.png")
    for split in ("train", "test"):
        (root / split / "metadata.csv").write_text("file_name,label\n1.png,a\n2.png,b\n")
    index, _ = told(read, root, "name", "split")
    assert index["test/2.png"] == ["b", "test"]


def test_group_by_folder_uses_the_folder_below_the_class(read, made):
    files = [f"{name}/plant_{plant}/{shot}.png" for name in "ab" for plant in (1, 2) for shot in (1, 2)]
    index, result = told(read, made(*files), "group")
    assert set(map(tuple, index.values())) == {("",)}
    assert "-S group_by=folder" in result.notes[0]
    index, result = told(read, made(), "name", "group", group_by="folder")
    assert index["a/plant_2/1.png"] == ["a", "a/plant_2"]
    assert result.notes == []


def test_single_outer_folder_is_ignored(read, made):
    index, _ = told(read, made("PlantVillage/a/1.png", "PlantVillage/b/2.png"), "name")
    assert index == {"PlantVillage/a/1.png": ["a"], "PlantVillage/b/2.png": ["b"]}


def test_known_class_is_found_at_any_folder_level(read, made):
    root = made("Apple/healthy/1.png", "Apple/unhealthy/2.png", "Corn/healthy/3.png")
    assert read(root, 8)[0].index["label"].tolist() == [0, 1, 0]


CROPS = ("Bean/healthy/1.png", "Bean/rust/2.png", "Chilli/healthy/3.png", "Chilli/leaf curl/4.png")


def test_listed_classes_can_join_two_folder_names(read, made):
    names = ["Bean healthy", "Bean rust", "Chilli healthy", "Chilli leaf curl"]
    result, _ = read(made(*CROPS), 8, names)
    assert result.classes["name"].tolist() == names
    assert result.index["crop"].tolist() == ["Bean", "Bean", "Chilli", "Chilli"]


def test_new_class_next_to_joined_names_is_reported_with_its_crop(read, made):
    with pytest.raises(LeafError, match="'Bean mosaic'"):
        read(made(*CROPS, "Bean/mosaic/5.png"), 8, ["Bean healthy", "Bean rust", "Chilli healthy", "Chilli leaf curl"])


def test_the_folder_above_a_listed_class_is_its_crop(read, made):
    result, _ = read(made(*CROPS), 8, ["healthy", "rust", "leaf curl"])
    assert result.index[["label", "crop"]].to_numpy().tolist() == [
        [0, "Bean"],
        [1, "Bean"],
        [0, "Chilli"],
        [2, "Chilli"],
    ]


def test_crop_is_read_from_class_folders_with_three_underscores(read, made):
    index, _ = told(read, made("Apple___rust/1.png", "Bean___rust/2.png"), "crop")
    assert index == {"Apple___rust/1.png": ["Apple"], "Bean___rust/2.png": ["Bean"]}


@pytest.mark.parametrize(
    ("folders", "note"), [(("7", "8"), "group_by=folder"), (("mild", "severe"), "look like classes")]
)
def test_numbered_folders_below_the_class_are_plants_and_others_are_classes(read, made, folders, note):
    files = [f"{top}/{folder}{top}/{number}.png" for top in "ab" for folder in folders for number in range(3)]
    assert [note in line for line in read(made(*files), 8, "auto")[0].notes] == [True]


def test_splits_are_drawn_if_all_images_are_in_train(read, made):
    index, result = told(read, made("train/a/1.png", "train/b/2.png"), "split")
    assert index == {"train/a/1.png": [""], "train/b/2.png": [""]}
    assert "validation and test images are selected" in result.notes[0]


def test_error_for_images_without_labels_proposes_the_tables_found(read, made):
    with pytest.raises(LeafError, match=r"'1\.png'") as caught:
        read(made("1.png", "2.png", train="image_id,label\n1,a\n"), 8, "auto")
    assert caught.value.proposals == [{"labels": str(made() / "train.csv")}]


def test_error_for_an_ambiguous_file_name_names_both_files(read, made):
    with pytest.raises(LeafError, match=r"'1\.png'.*'a/1\.png', 'b/1\.png'"):
        read(made("a/1.png", "b/1.png", metadata="file,group\n1.png,x\n"), 8, "auto")


def test_audit_columns_are_kept(read, made):
    root = made("a/1.png", "b/2.png", metadata="file,site,date\n1.png,north,2026-01-01\n2.png,,\n")
    index, result = told(read, root, "site", "date")
    assert index["a/1.png"] == ["north", "2026-01-01"]
    assert "crop" not in result.index


SYSTEM_FILES = ["Thumbs.db", "desktop.ini", ".DS_Store", "Icon\r", "._1.png", "__MACOSX/a/1.png", "@eaDir/1.png"]
SYSTEM_FILES += ["$RECYCLE.BIN/1.png", "a/.ipynb_checkpoints/1.png", "a/Thumbs.db"]


@pytest.mark.parametrize("name", SYSTEM_FILES)
def test_system_files_are_skipped_and_counted(read, made, name):
    root = made("a/1.png", "b/2.png")
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(b"x")
    index, result = told(read, root, "name")
    assert len(index) == 2
    assert result.notes[0].startswith("skipped 1 system file: ")


def test_other_files_are_counted_with_an_example(read, made):
    root = made("a/1.png", "b/2.png")
    (root / "README.roboflow.txt").write_text("x")
    (note,) = told(read, root, "name")[1].notes
    assert "skipped 1 non-image file " in note
    assert "README.roboflow.txt" in note


def test_ignored_images_are_listed(read, made):
    result, _ = read(made("a/1.png", "b/2.png", "Background/3.png"), 8, "auto", ignore=["back*"])
    assert result.unreadable.to_numpy().tolist() == [["Background/3.png", "class Background is excluded by `ignore`"]]


def test_any_text_can_name_a_class(read, made):
    names = ["~", "-dash", "<b>", 'it"s', "o'k", "🍃", "a b", "yes", "007", "2026-01-01", "NA", "1e5"]
    index, result = told(read, made(*(f"{name}/1.png" for name in names)), "name")
    assert index == {f"{name}/1.png": [name] for name in names}
    assert sorted(result.classes["name"]) == sorted(names)


def test_unicode_forms_of_a_name_are_one_class(read, made):
    root = made("Bl\u00e4tter/1.png", "Bla\u0308tter/2.png", "b/3.png")
    index, _ = told(read, root, "name")
    assert set(map(tuple, index.values())) == {("Bl\u00e4tter",), ("b",)}
    wanted, _ = read(root, 8, ["Bla\u0308tter", "b"])
    assert wanted.classes["images"].tolist() == [2, 1]


def test_classes_that_differ_only_by_case_are_noted(read, made):
    _, result = told(read, made("Rust/1.png", "rust/2.png", "b_c/3.png", "b c/4.png"), "name")
    assert any("'Rust', 'rust' are separate classes" in note for note in result.notes)
    assert any("'b c', 'b_c' are separate classes" in note for note in result.notes)


def test_unused_column_is_reported_when_classes_are_rejected(read, made):
    root = made("x/1.png", "x/2.png", metadata="file,lable\n1.png,a\n2.png,b\n")
    with pytest.raises(LeafError, match=r"'x'.*'lable' \(did you mean label\?\)"):
        read(root, 8, "auto")


def test_class_name_of_thousands_of_characters_is_rejected(read, made):
    root = made("x/1.png", "x/2.png", metadata=f"file,label\n1.png,{'1' * 10_000}\n2.png,2\n")
    with pytest.raises(LeafError, match=r"x/1\.png: .*10000.*200"):
        read(root, 8, "auto")
