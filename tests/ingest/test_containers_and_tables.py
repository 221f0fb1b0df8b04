"""Folders and label tables from other tools are read without inventing a class or silently dropping a label."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from leaf.errors import LeafError
from leaf.ingest.classes import Wanted


@pytest.fixture
def dataset(tmp_path):
    """Return a function that writes small, distinct images and text files, and returns the folder of images."""

    def run(*names: str, texts: dict[str, str] | None = None):
        random = np.random.default_rng(0)
        for name in names:
            path = tmp_path / "d" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
        for name, text in (texts or {}).items():
            (tmp_path / name).write_text(text)
        return tmp_path / "d"

    return run


def labels_of(read, root, classes: Wanted = "auto", **options):
    result, _ = read(root, 8, classes, **options)
    names = result.classes["name"].tolist()
    return {row.source: names[row.label] for row in result.index.itertuples()}, result


FOUR = [f"{year}/{number}.png" for year in (2023, 2024) for number in (1, 2)]


@pytest.mark.parametrize("column", ["diagnosis", "dx", "choice"])
def test_common_names_of_label_columns_are_detected(read, dataset, tmp_path, column):
    rows = "".join(f"{file},{'rust' if '1' in file[5:] else 'healthy'}\n" for file in FOUR)
    root = dataset(*FOUR, texts={"t.csv": f"file,{column}\n{rows}"})
    labels, _ = labels_of(read, root, labels=tmp_path / "t.csv")
    assert labels["2024/1.png"] == "rust"
    assert labels["2024/2.png"] == "healthy"


@pytest.mark.parametrize("more", ["", ",plant"])
def test_error_for_an_unknown_label_column_names_the_key(read, dataset, tmp_path, more):
    rows = "".join(f"{file},{'a' if '1' in file[5:] else 'b'}{',p' + file[3] if more else ''}\n" for file in FOUR)
    root = dataset(*FOUR, texts={"t.csv": f"file,finding{more}\n{rows}"})
    with pytest.raises(LeafError, match="'finding'") as caught:
        read(root, 8, "auto", labels=tmp_path / "t.csv")
    assert caught.value.proposals[0] == {"columns.label": "finding"}
    labels, _ = labels_of(read, root, labels=tmp_path / "t.csv", columns={"label": "finding"})
    assert set(labels.values()) == {"a", "b"}


def test_rows_without_label_are_left_out_and_counted(read, dataset, tmp_path):
    root = dataset(*FOUR, texts={"t.csv": "file,label\n2023/1.png,a\n2023/2.png,b\n2024/1.png,\n2024/2.png,a\n"})
    labels, result = labels_of(read, root, labels=tmp_path / "t.csv")
    assert set(labels.values()) == {"a", "b"}
    assert result.unreadable.to_numpy().tolist() == [["2024/1.png", "no label in t.csv"]]


def test_flag_columns_of_a_table_in_the_folder_do_not_override_class_folders(read, dataset):
    root = dataset("a/1.png", "a/2.png", "b/3.png", "b/4.png")
    (root / "metadata.csv").write_text("file,in_field,is_train\n1.png,1,0\n2.png,0,1\n3.png,1,0\n4.png,0,1\n")
    labels, _ = labels_of(read, root)
    assert labels == {"a/1.png": "a", "a/2.png": "a", "b/3.png": "b", "b/4.png": "b"}


def test_one_hot_columns_of_a_table_in_the_folder_do_not_override_class_folders(read, dataset):
    root = dataset("a/1.png", "b/2.png")
    (root / "metadata.csv").write_text("file,wet,dry\n1.png,1,0\n2.png,0,1\n")
    labels, result = labels_of(read, root)
    assert labels == {"a/1.png": "a", "b/2.png": "b"}
    assert any("do not override the class folders" in note for note in result.notes)


def test_labels_of_a_table_in_the_folder_that_override_folders_are_counted(read, dataset):
    root = dataset("a/1.png", "b/2.png")
    (root / "metadata.csv").write_text("file,label\n1.png,b\n2.png,a\n")
    assert "images whose label in metadata.csv overrides the folder: 2" in labels_of(read, root)[1].notes


def test_is_test_and_numbered_splits_are_read(read, dataset, tmp_path):
    flags = dataset("a/1.png", "b/2.png", texts={"t.csv": "file,is_test,PlantID\n1.png,1,p\n2.png,0,q\n"})
    result, _ = read(flags, 8, "auto", labels=tmp_path / "t.csv")
    assert result.index[["split", "group"]].to_numpy().tolist() == [["test", "p"], ["train", "q"]]
    dataset("a/3.png", texts={"t.csv": "file,split\n1.png,1\n2.png,2\n3.png,3\n"})
    result, _ = read(flags, 8, "auto", labels=tmp_path / "t.csv")
    assert sorted(result.index["split"]) == ["test", "train", "validation"]


def test_encoding_can_be_set(read, dataset, tmp_path):
    root = dataset("1.png", "2.png")
    (tmp_path / "t.csv").write_bytes("file,label\n1.png,лист\n2.png,b\n".encode("koi8-r"))
    assert set(labels_of(read, root, labels=tmp_path / "t.csv", encoding="koi8-r")[0].values()) == {"лист", "b"}


def test_raw_color_and_grayscale_are_containers(read, dataset):
    files = [
        f"raw/{kind}/{name}/{n}.png" for kind in ("color", "grayscale") for name in ("Apple", "Corn") for n in (1, 2)
    ]
    root = dataset(*files)
    with pytest.raises(LeafError, match="'color', 'grayscale'") as caught:
        read(root, 8, "auto")
    assert {"dataset": str(root / "raw/color")} in caught.value.proposals
    assert set(labels_of(read, root / "raw/color")[0].values()) == {"Apple", "Corn"}


def test_copy_of_the_data_set_inside_it_is_rejected(read, dataset):
    root = dataset("a/1.png", "b/2.png", "copy/a/1.png", "copy/b/2.png")
    with pytest.raises(LeafError, match="'copy'") as caught:
        read(root, 8, "auto")
    assert caught.value.proposals[0] == {"ignore": ["copy"]}
    assert set(labels_of(read, root, ignore=["copy"])[0].values()) == {"a", "b"}


@pytest.mark.parametrize("tops", [("2023", "2024"), ("north", "south", "east", "west")])
def test_sites_and_years_above_the_classes_are_containers(read, dataset, tops):
    root = dataset(*(f"{top}/{name}/{n}.png" for top in tops for name in ("healthy", "rust") for n in (1, 2)))
    with pytest.raises(LeafError) as caught:
        read(root, 8, "auto")
    proposal = caught.value.proposals[0]
    assert proposal["classes"] == ["healthy", "rust"]
    result, _ = read(root, 8, **proposal)
    assert result.classes["images"].tolist() == [2 * len(tops)] * 2
    if "group_by" in proposal:
        assert set(result.index["group"]) == set(tops)


CONTAINERS = {
    "years with one class each": ["2023/healthy", "2024/rust"],
    "fields and plots": ["f1/p1/healthy", "f1/p1/rust", "f2/p1/healthy"],
    "people who write classes differently": ["alice/Healthy", "alice/Rust", "bob/healthy", "bob/rust"],
    "days": ["day1/ok", "day1/bad", "day2/ok", "day2/bad"],
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_container_folders_are_rejected_and_their_classes_proposed(read, dataset, kind):
    root = dataset(*(f"{folder}/{n}.png" for folder in CONTAINERS[kind] for n in (1, 2)))
    with pytest.raises(LeafError) as caught:
        read(root, 8, "auto")
    inner = sorted({folder.rpartition("/")[2] for folder in CONTAINERS[kind]})
    assert caught.value.proposals[0] == {"classes": inner}
    assert read(root, 8, inner)[0].classes["name"].tolist() == inner


@pytest.mark.parametrize("form", ["{split}/{split}/{name}", "{split}/images/{name}", "x/{split}/{name}"])
def test_folders_around_classes_within_splits_are_not_classes(read, dataset, form):
    files = [f"{form.format(split=split, name=name)}/1.png" for split in ("Train", "Test") for name in ("a", "b")]
    labels, result = labels_of(read, dataset(*files))
    assert set(labels.values()) == {"a", "b"}
    assert set(result.index["split"]) == {"train", "test"}


def test_copied_class_folders_are_noted(read, dataset):
    _, result = labels_of(read, dataset("a/1.png", "a - Kopie/2.png", "b/3.png", "b (2)/4.png"))
    assert sum("are separate classes" in note for note in result.notes) == 2


def test_container_folders_are_accepted_if_named_as_classes(read, dataset):
    root = dataset(*(f"{top}/{name}/1.png" for top in ("rust", "scab") for name in ("north", "south")))
    assert set(labels_of(read, root, ["rust", "scab"])[0].values()) == {"rust", "scab"}


def test_class_folders_that_differ_by_spaces_are_merged_with_a_note(read, dataset):
    labels, result = labels_of(read, dataset("healthy/1.png", "healthy /2.png", "b/3.png"))
    assert set(labels.values()) == {"healthy", "b"}
    assert any("'healthy', 'healthy '" in note for note in result.notes)


@pytest.mark.parametrize(
    ("one", "other", "name"), [("1", "1.0", "1"), ("p 1", "p\u00a01 ", "p 1"), ("p", "p\u200b", "p")]
)
def test_groups_merged_by_normalization_are_noted(read, dataset, tmp_path, one, other, name):
    root = dataset("a/1.png", "b/2.png", texts={"t.csv": f"file,plant\n1.png,{one}\n2.png,{other}\n"})
    result, _ = read(root, 8, "auto", labels=tmp_path / "t.csv")
    assert set(result.index["group"]) == {name}
    assert f"{tmp_path / 't.csv'}: {one!a}, {other!a} are merged into the group {name!r}" in result.notes


@pytest.mark.parametrize(("one", "other"), [("7", "007"), ("P1", "p1"), ("p1", "p_1"), ("p1", "\uff501")])
def test_groups_that_look_alike_are_noted(read, dataset, tmp_path, one, other):
    root = dataset("a/1.png", "b/2.png", texts={"t.csv": f"file,plant\n1.png,{one}\n2.png,{other}\n"})
    result, _ = read(root, 8, "auto", labels=tmp_path / "t.csv")
    assert set(result.index["group"]) == {one, other}
    assert any("are separate groups" in note and repr(one) in note for note in result.notes)


def test_readable_file_is_preferred_to_a_raw_file_of_the_same_name(read, dataset, tmp_path):
    root = dataset("X.png", "Y.png", texts={"t.csv": "file,label\nX,a\nY,b\n"})
    (root / "X.NEF").write_bytes(b"II*\0" + bytes(4) + b"CR" + bytes(100))
    assert labels_of(read, root, labels=tmp_path / "t.csv")[0] == {"X.png": "a", "Y.png": "b"}


TASKS = [
    {"id": n, "data": {"image": image}, "annotations": [{"result": [{"value": {"choices": [choice]}}]}]}
    for n, image, choice in (
        (1, "/data/upload/1/0a1b2c3d-leaf%201.png", "rust"),
        (2, "s3://bucket/deep/leaf2.png", "healthy"),
        (3, "https://host/x/leaf3.png?token=1", "rust"),
        (4, "/data/local-files/?d=d/leaf4.png", "healthy"),
    )
]
LEAVES = ["leaf 1.png", "leaf2.png", "leaf3.png", "leaf4.png"]


def test_label_studio_json_is_read(read, dataset, tmp_path):
    root = dataset(*LEAVES, texts={"t.json": json.dumps(TASKS)})
    labels, _ = labels_of(read, root, labels=tmp_path / "t.json")
    assert labels == dict(zip(LEAVES, ("rust", "healthy", "rust", "healthy"), strict=True))


def test_label_studio_csv_is_read(read, dataset, tmp_path):
    rows = [
        (task["data"]["image"], task["id"], task["annotations"][0]["result"][0]["value"]["choices"][0])
        for task in TASKS
    ]
    text = "image,id,choice,annotator,lead_time\n" + "".join(
        f"{image},{n},{choice},1,2.5\n" for image, n, choice in rows
    )
    root = dataset(*LEAVES, texts={"t.csv": text})
    assert labels_of(read, root, labels=tmp_path / "t.csv")[0]["leaf 1.png"] == "rust"


def test_cvat_xml_is_read(read, dataset, tmp_path):
    tags = "".join(
        f'<image id="{n}" name="{n}.png"><tag label="{label}"/></image>' for n, label in ((1, "a"), (2, "b"))
    )
    root = dataset("1.png", "2.png", texts={"t.xml": f'<?xml version="1.0"?><annotations>{tags}</annotations>'})
    assert labels_of(read, root, labels=tmp_path / "t.xml")[0] == {"1.png": "a", "2.png": "b"}


def test_tag_attributes_and_subsets_of_cvat_are_columns(read, dataset, tmp_path):
    tags = "".join(
        f'<image name="{n}.png" subset="{subset}"><tag label="leaf"><attribute name="finding">{label}</attribute></tag>'
        "</image>"
        for n, subset, label in ((1, "Train", "a"), (2, "Test", "b"))
    )
    root = dataset("1.png", "2.png", texts={"t.xml": f"<annotations>{tags}</annotations>"})
    labels, result = labels_of(read, root, labels=tmp_path / "t.xml", columns={"label": "finding"})
    assert labels == {"1.png": "a", "2.png": "b"}
    assert result.index["split"].tolist() == ["train", "test"]


def test_cvat_boxes_without_tags_are_rejected(read, dataset, tmp_path):
    root = dataset("1.png", texts={"t.xml": '<annotations><image name="1.png"><box label="a"/></image></annotations>'})
    with pytest.raises(LeafError, match="no image has a tag"):
        read(root, 8, "auto", labels=tmp_path / "t.xml")


def task(number, *controls, cancelled=False):
    results = [{"from_name": name, "value": {"choices": choices}} for name, choices in controls]
    return {
        "id": 9,
        "data": {"photo": f"{number}.png"},
        "annotations": [{"was_cancelled": cancelled, "result": results}],
    }


def test_label_studio_tasks_without_a_single_choice_are_left_out(read, dataset, tmp_path):
    root = dataset(*(f"{number}.png" for number in range(1, 6)))
    several, skipped = task(3, ("d", ["a", "b"])), task(4, ("d", ["a"]), cancelled=True)
    boxes = task(5) | {"annotations": [{"result": [{"type": "rectanglelabels", "value": {"x": 1}}]}]}
    (tmp_path / "t.json").write_text(
        json.dumps([task(1, ("d", ["a"])), task(2, ("d", ["b"])), several, skipped, boxes])
    )
    labels, result = labels_of(read, root, labels=tmp_path / "t.json")
    assert labels == {"1.png": "a", "2.png": "b"}
    assert result.unreadable["file"].tolist() == ["3.png", "4.png", "5.png"]
    assert any("skipped 1 row with several labels" in note for note in result.notes)
    assert any("column 'photo' is used for the file names" in note for note in result.notes)


def test_each_choice_control_of_label_studio_is_a_column(read, dataset, tmp_path):
    tasks = [task(n, ("finding", [label]), ("quality", ["good"])) for n, label in ((1, "a"), (2, "b"))]
    root = dataset("1.png", "2.png", texts={"t.json": json.dumps(tasks)})
    labels, _ = labels_of(read, root, labels=tmp_path / "t.json", columns={"label": "finding"})
    assert set(labels.values()) == {"a", "b"}


def test_task_number_of_label_studio_is_not_a_file_name(read, dataset, tmp_path):
    text = "id,photo,choice,annotation_id,lead_time\n1,2.png,a,1,1\n2,1.png,b,1,1\n"
    root = dataset("1.png", "2.png", texts={"t.csv": text})
    assert labels_of(read, root, labels=tmp_path / "t.csv")[0] == {"1.png": "b", "2.png": "a"}


@pytest.mark.parametrize(
    "text", ['{"a": 1}', "[1]", '[{"data": "x"}]', '[{"annotations": [{"result": 5}]}]', "[" * 9999]
)
def test_error_for_json_with_another_structure_names_the_file(read, dataset, tmp_path, text):
    root = dataset("1.png", "2.png", texts={"t.json": text})
    with pytest.raises(LeafError, match=r"t\.json: ") as caught:
        read(root, 8, "auto", labels=tmp_path / "t.json")
    assert len(str(caught.value)) < 300


def test_roboflow_rows_without_a_single_class_are_left_out(read, dataset):
    root = dataset(*(f"train/{number}.png" for number in range(1, 5)))
    (root / "train/_classes.csv").write_text("filename, healthy, rust\n1.png,1,0\n2.png,0,1\n3.png,1,1\n4.png,0,0\n")
    labels, result = labels_of(read, root)
    assert labels == {"train/1.png": "healthy", "train/2.png": "rust"}
    assert result.unreadable["file"].tolist() == ["train/3.png", "train/4.png"]


def test_table_without_header_is_rejected(read, dataset, tmp_path):
    root = dataset("1.png", "2.png", texts={"t.txt": "1.png 0\n2.png 1\n"})
    with pytest.raises(LeafError, match="no header"):
        read(root, 8, "auto", labels=tmp_path / "t.txt")


def test_roboflow_classes_csv_is_read(read, dataset):
    root = dataset("train/1.png", "train/2.png", "test/3.png", "test/4.png")
    (root / "train/_classes.csv").write_text("filename, healthy, rust\n1.png, 1, 0\n2.png, 0, 1\n")
    (root / "test/_classes.csv").write_text("filename, healthy, rust\n3.png, 1, 0\n4.png, 0, 1\n")
    labels, result = labels_of(read, root)
    assert labels["train/2.png"] == "rust"
    assert set(result.index["split"]) == {"train", "test"}


def test_json_error_includes_line_and_column(read, dataset, tmp_path):
    root = dataset("1.png", "2.png", texts={"t.json": '[{"image": "1.png",\n oops}]'})
    with pytest.raises(LeafError, match="line 2, column 2: not JSON") as caught:
        read(root, 8, "auto", labels=tmp_path / "t.json")
    assert len(str(caught.value)) < 200


def test_error_for_an_lfs_pointer_as_label_table_says_what_to_do(read, dataset, tmp_path):
    root = dataset("1.png", texts={"t.csv": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"})
    with pytest.raises(LeafError, match="git lfs pull"):
        read(root, 8, "auto", labels=tmp_path / "t.csv")


PLACEHOLDERS = [
    ("{}.jpg", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    (".{}.HEIC.icloud", b"bplist00\xd3", "download it in the Finder"),
    ("{}.jpg", b"/annex/objects/SHA256E-s1--0.jpg\n", "git annex get"),
    ("{}.jpg", b"<!DOCTYPE html><title>Sign in</title>", "a web page"),
    ("{}.jpg", b"", "an empty file"),
]


@pytest.mark.parametrize(("name", "data", "remedy"), PLACEHOLDERS)
def test_placeholder_files_are_counted_with_a_remedy(read, dataset, name, data, remedy):
    root = dataset()
    for number in range(6):
        path = root / ("healthy", "unhealthy")[number % 2] / name.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with pytest.raises(LeafError, match=rf"6 files: .*{remedy}"):
        read(root)


@pytest.mark.parametrize(
    ("name", "remedy"), [("leaves.zip", "Unpack"), ("leaves.dvc", "dvc pull"), ("a.parquet", "Export")]
)
def test_error_for_a_folder_without_images_says_what_to_do(read, dataset, name, remedy):
    root = dataset()
    root.mkdir()
    (root / name).write_bytes(b"x")
    with pytest.raises(LeafError, match=remedy):
        read(root)


def test_error_for_a_tar_archive_shows_the_command(read, tmp_path):
    (tmp_path / "leaves.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(LeafError, match=r"tar -xf .*leaves\.tar\.gz -C .*leaves\.images"):
        read(tmp_path / "leaves.tar.gz")


def test_error_for_a_zip_archive_shows_the_command(read, tmp_path):
    with zipfile.ZipFile(tmp_path / "my leaves.zip", "w") as file:
        file.writestr("healthy/1.jpg", b"x")
    with pytest.raises(LeafError, match=r"zipfile -e '.*my leaves\.zip' '.*my leaves'") as caught:
        read(tmp_path / "my leaves.zip")
    assert caught.value.proposals == [{"dataset": str(tmp_path / "my leaves")}]
