"""`leaf check` reports errors and risks before the first stage runs."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from dvc.utils.hydra import apply_overrides
from PIL import Image
from typer.testing import CliRunner

from leaf import store
from leaf.check import check
from leaf.cli import app
from leaf.dvc_experiments import run_experiments
from leaf.errors import LeafError, one_line_errors


@pytest.fixture
def project(tmp_path, monkeypatch, request):
    """Change to a project folder with 30 images of two classes in leaves/."""
    for name in ("params.yaml", "dvc.yaml", "experiments.yaml"):
        shutil.copy(request.config.rootpath / name, tmp_path)
    shutil.copytree(request.config.rootpath / "data", tmp_path / "data", ignore=lambda folder, _: ["raw"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LEAF_STATE", str(tmp_path / "state"))
    for number in range(30):
        put(tmp_path / "leaves" / ("healthy", "unhealthy")[number % 3 == 0] / f"IMG_{number:04}.jpg")
    return tmp_path


def put(path, size=(40, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)).save(path)


def printed(**settings):
    return check({"dataset": "leaves", **settings})[1]


def refusal(**settings):
    with pytest.raises(LeafError) as caught:
        printed(**settings)
    return str(caught.value)


def test_classes_and_splits_are_counted(project):
    lines = [line.split() for line in printed().splitlines()]
    assert ["class", "images", "groups", "train", "validation", "test"] in lines
    assert ["healthy", "20", "0", "13", "3", "4"] in lines
    assert ["unhealthy", "10", "0", "6", "2", "2"] in lines
    assert ["all", "30", "0", "19", "5", "6"] in lines


def test_recipe_and_size_are_recommended(project):
    found = printed()
    assert "30 images on a CPU: `leaf run probe` and `leaf run transfer`" in found
    assert "-S image_size" not in found
    for path in (project / "leaves").rglob("*.jpg"):
        put(path, (200, 170))
    assert "-S image_size=160" in printed()


def test_download_of_a_checkpoint_and_its_license_are_announced(project):
    found = printed(backbone="convnextv2_nano", weights="imagenet")
    assert "https://huggingface.co/timm/convnextv2_nano.fcmae_ft_in1k" in found
    assert "CC-BY-NC-4.0" in found
    assert "CC-BY" not in printed(backbone="convnext_nano", weights="timm/convnext_nano.in12k@main")


def test_other_class_names_are_rejected_with_a_command(project):
    (project / "leaves" / "unhealthy").rename(project / "leaves" / "rust brown")
    assert refusal().endswith(". Run: dvc exp run -S dataset=leaves -S classes=auto")


def test_proposed_commands_keep_the_other_settings(project):
    for name in ("a_healthy", "b_rust", "c"):
        put(project / "more" / name / "1.jpg")
    assert refusal(dataset="more", dropout=0.2).endswith(
        ". Run: dvc exp run -S dataset=more -S dropout=0.2 -S classes=auto or dvc exp run -S dataset=more "
        """-S dropout=0.2 -S classes=null -S 'classes={healthy:["*healthy"],unhealthy:["*"]}'"""
    )


def test_skipped_files_are_counted_by_reason(project):
    put(project / "leaves" / "lost.jpg")
    (project / "leaves" / "Thumbs.db").touch()
    assert "left out   1 file: in no class folder (first: 'lost.jpg')" in printed()
    assert "1 system file: 'Thumbs.db' (1)" in printed()


def test_table_without_a_label_column_is_rejected_with_similar_names(project):
    for number in range(4):
        put(project / "flat" / f"{number}.jpg")
    (project / "t.csv").write_text("file,lable\n" + "".join(f"{number}.jpg,healthy\n" for number in range(4)))
    assert "t.csv: columns not used: 'lable' (did you mean label?)" in refusal(dataset="flat", labels="t.csv")


def test_rows_without_image_and_images_without_row_are_counted(project):
    names = [f"healthy/IMG_{number:04}.jpg,healthy" for number in range(60) if number % 3]
    names += [f"unhealthy/IMG_{number:04}.jpg,unhealthy" for number in range(0, 30, 3) if number != 6]
    (project / "t.csv").write_text("\n".join(["file,label", *names]))
    lines = printed(labels="t.csv")
    assert "left out   20 files: listed in t.csv, but not found in leaves (first: 'healthy/IMG_0031.jpg')" in lines
    assert "left out   1 file: not in t.csv (first: 'unhealthy/IMG_0006.jpg')" in lines


def test_opened_files_that_are_not_images_are_counted(project):
    (project / "leaves/healthy/a.jpg").touch()
    assert "left out   1 of 31 opened files: not an image (first: 'healthy/a.jpg': an empty file)" in printed()


def test_pipe_is_rejected_without_blocking(project):
    os.mkfifo(project / "leaves/healthy/pipe.jpg")
    assert refusal() == "dataset: leaves/healthy/pipe.jpg: not a regular file. Remove it."


def test_group_in_two_given_splits_is_counted_in_the_split_that_keeps_it(project):
    rows = ["file,label,group,split"]
    for place, path in enumerate(sorted((project / "leaves").rglob("*.jpg"))):
        split = "test" if place % 10 == 0 else "train"
        rows.append(f"{path.relative_to(project / 'leaves')},{path.parent.name},{place // 2},{split}")
    (project / "table.csv").write_text("\n".join(rows))
    lines = printed(labels="table.csv")
    assert "left out   3 images: another given split contains an image of the same group; test takes" in lines
    assert ["all", "27", "15", "20", "4", "3"] in [line.split() for line in lines.splitlines()]


def test_names_that_suggest_one_plant_are_reported_as_a_risk(project):
    assert "images of the same plant" not in printed()
    for number in range(20):
        put(project / "series" / ("healthy", "unhealthy")[number > 9] / f"plant{number // 4:02}_{number % 4}.jpg")
    risk = "'healthy/plant00_0.jpg' and 'healthy/plant00_1.jpg' suggest images of the same plant"
    assert risk in printed(dataset="series")


def test_wide_images_are_reported_as_a_risk(project):
    for number in range(30):
        put(project / "wide" / ("healthy", "unhealthy")[number % 3 == 0] / f"{number}.jpg", (80, 40))
    assert "100% of the images have an aspect ratio above 4:3; the crop removes 50% of each" in printed(dataset="wide")
    assert "wider" not in printed()


def test_class_too_small_for_smote_is_rejected_with_a_command(project):
    line = refusal(smote_neighbors=8)
    assert "requires 9 training images in each class except the largest; unhealthy has 6. Run: dvc exp run" in line
    assert line.endswith("-S dataset=leaves -S smote_neighbors=8 -S balance=class_weight")


def test_memory_for_smote_is_reported_as_a_risk(project):
    assert "synthetic images" not in printed()
    for number in range(300):
        put(project / "leaves" / "healthy" / f"more_{number:04}.jpg")
    assert "202 synthetic images require 0.6 GB; balance=class_weight creates none" in printed(image_size=1024)
    limited = printed(image_size=1024, balance_limit_gb=0.5)
    assert "0.6 GB, more than balance_limit_gb (0.5)" in limited


def test_errors_of_the_evaluate_stage_are_found_early(project):
    for number in range(12):
        put(project / "leaves" / "rust" / f"{number}.jpg")
    assert "threshold: 0.4; valid: 0.5" in refusal(classes="auto", threshold=0.4)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"backbone": "resnet5"}, "backbone: 'resnet5' is unknown; did you mean resnet50?"),
        ({"backbone": "gan", "image_size": 40}, "image_size: 40; valid: a multiple of 16 for gan"),
        ({"backbone": "gan", "dropout_at": "input"}, "weight_averaging: 0.99; valid: 0 for gan"),
        ({"backbone": "xception", "image_size": 64}, "image_size: 64; valid: at least 71 for xception"),
        ({"freeze_depth": 100}, "freeze_depth: 100; valid: 0 to 99 for convnext_atto, or all"),
        ({"weights": "imagenet"}, "weights: imagenet: no weights are published for convnext_atto"),
        ({"labels": "nowhere.csv"}, "labels: nowhere.csv: no such file"),
        ({"masks": "nowhere"}, "masks: nowhere: no such folder"),
        ({"masks": "leaves/healthy"}, "masks: leaves/healthy: no file matches an image"),
        (
            {"augmentation.background": "swap"},
            "-S: augmentation.background: swap ",
        ),
        (
            {"augmentation.background": "swap", "balance": "none", "backbone": "gan", "dropout_at": "input"}
            | {"weight_averaging": 0},
            "augmentation.background: swap; valid: keep for gan",
        ),
    ],
)
def test_errors_of_the_train_stage_and_of_dvc_are_found_early(project, settings, line):
    assert refusal(**settings).startswith(line)


def test_detector_with_more_than_two_classes_is_rejected(project):
    for number in range(12):
        put(project / "leaves" / "rust" / f"{number}.jpg")
    line = "backbone: autoencoder is a detector for two classes, not 3. Use a classifier."
    assert refusal(classes="auto", backbone="autoencoder", weight_averaging=0, dropout_at="input") == line


@pytest.mark.parametrize("setting", [{"labels": "table.csv"}, {"group_by": "folder"}])
def test_folder_keys_are_rejected_for_a_missing_npz(project, setting):
    (project / "table.csv").write_text("file,label\na.jpg,healthy\n")
    with pytest.raises(LeafError, match=r"leaves\.npz: .*`labels`.*`group_by`"):
        check(setting)


def test_errors_of_the_split_stage_are_found_early(project):
    assert "validation_size" in refusal(validation_size=20, test_size=20)


def test_weights_are_hashed_and_the_hash_is_filled_in(project):
    (project / "w.h5").write_bytes(b"weights")
    settings, lines = check({"weights": "w.h5"})
    assert settings["weights_sha256"] == store.sha256("w.h5")
    assert store.sha256("w.h5") in lines


def test_wrong_weights_hash_is_rejected_and_the_correct_one_is_shown(project):
    (project / "w.h5").write_bytes(b"weights")
    assert store.sha256("w.h5") in refusal(weights="w.h5", weights_sha256="0" * 64)


def test_masks_are_matched_by_image_name(project):
    assert "masks" not in printed()
    swap = {"augmentation.background": "swap", "balance": "none"}
    assert "masks      for 0 of 30 images; GrabCut estimates the other masks" in printed(**swap)
    put(project / "masks/healthy/IMG_0001.png")
    assert "masks      for 1 of 30 images" in printed(masks="masks").splitlines()


def test_time_is_estimated_from_the_last_training_run(project):
    assert "unknown until convnext_atto has been trained at 96 pixels" in printed()
    store.save_cached_value(
        "epochs", "convnext_atto 96 0 32 float32 adam", {"seconds": 200, "images": 400, "memory": 2**30}
    )
    assert "9.5 s per epoch, at most 5.1 min for 32 epochs" in printed()


def test_download_of_imagenet_weights_is_announced(project):
    line = check({"backbone": "mobilenet_v2", "weights": "imagenet"})[1].splitlines()[-1]
    assert "mobilenet_v2" in line
    assert "https://storage.googleapis.com/tensorflow/keras-applications" in line


def test_data_set_that_a_stage_generates_may_be_missing(project):
    assert check({})[1] == "params.yaml: valid; dataset: data/raw/leaves.npz"


def test_invalid_run_is_rejected_before_dvc_is_called(project, monkeypatch):
    monkeypatch.setattr("leaf.dvc_experiments.require_commit", lambda: None)
    monkeypatch.setattr("leaf.dvc_experiments.subprocess", None)
    monkeypatch.setattr("leaf.dvc_experiments._existing", set)
    monkeypatch.setattr("leaf.dvc_experiments.require_commit", lambda: None)
    before = (project / "params.yaml").read_bytes()
    with pytest.raises(LeafError, match="no such file or folder"):
        run_experiments(["plain"], {"dataset": "nowhere"})
    assert (project / "params.yaml").read_bytes() == before


@pytest.mark.parametrize("key", ["dataset", "labels", "masks", "weights"])
@pytest.mark.parametrize("path", ["a" * 5000, "a/" * 3000])
def test_too_long_path_causes_a_short_one_line_error(project, capsys, key, path):
    with pytest.raises(SystemExit, match="2"), one_line_errors():
        check({key: path})
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    assert len(line) < 500


def test_check_does_not_import_keras(project):
    code = "import sys; from leaf.check import check; check({'dataset': 'leaves'}); print('keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_empty_masks_are_reported(project):
    values = np.zeros((40, 40), np.uint8)
    for number in range(30):
        path = project / "data/masks" / ("healthy", "unhealthy")[number % 3 == 0] / f"IMG_{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        values[10:30, 10:30] = number != 7
        Image.fromarray(values).save(path)
    lines = printed()
    assert "masks      for 30 of 30 images" in lines
    assert "no leaf in 1 of 30 opened masks (first: 'data/masks/healthy/IMG_0007.png')" in lines
    path.write_bytes(b"no image")
    assert refusal().startswith(f"masks: {path.relative_to(project)}: text, not a JPEG")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def test_data_set_of_lfs_pointers_is_rejected_with_a_remedy(project):
    for path in (project / "leaves").rglob("*.jpg"):
        path.write_bytes(POINTER)
    assert "no image can be read (30 files: a Git LFS pointer" in refusal()
    assert "git lfs pull" in refusal()


def test_class_of_lfs_pointers_is_rejected_with_a_remedy(project):
    for path in (project / "leaves/unhealthy").iterdir():
        path.write_bytes(POINTER)
    assert "no image of the class unhealthy (10 files: a Git LFS pointer" in refusal()


def test_data_set_of_cloud_placeholders_is_rejected_with_a_remedy(project):
    for path in (project / "leaves").rglob("*.jpg"):
        path.unlink()
        path.with_name(f".{path.name}.icloud").write_bytes(b"bplist00")
    assert "30 files: an iCloud placeholder, not the image (download it" in refusal()


ODD_FOLDERS = ["data (1)", "a,b", "Blätter & Blüten", "it's", "[x]=1", 'say "x"', "${HOME}", "back\\slash"]


@pytest.mark.parametrize("name", ODD_FOLDERS)
def test_command_is_quoted_for_the_shell_and_for_dvc(project, name):
    (project / "leaves").rename(project / name)
    yaml_text = json.dumps(name, ensure_ascii=False)
    line = CliRunner().invoke(app, ["check", "-S", f"dataset={yaml_text}"]).stdout.splitlines()[-1]
    assert line.startswith("run        dvc exp run -S ")
    apply_overrides("params.yaml", shlex.split(line)[-1:])
    assert store.read_yaml("params.yaml")["dataset"] == name


def test_pinned_images_are_counted(project):
    (project / "data/pinned.csv").write_text("file_hash,split\nabc,test\ndef,train\n")
    assert "pins       2 images" in check({})[1]


def test_cached_imagenet_weights_are_not_announced_as_a_download(project, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(project / "keras"))
    chosen = {"backbone": "mobilenet_v2", "weights": "imagenet", "image_size": 160}
    assert "9 MB, downloaded once from https://storage.googleapis.com" in check(chosen)[1]
    (project / "keras/models").mkdir(parents=True)
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_160_no_top.h5"
    (project / "keras/models" / name).touch()
    line = check(chosen)[1].splitlines()[-1]
    assert name in line
    assert "http" not in line


def test_repository_of_timm_weights_is_reported(project):
    line = check({"backbone": "convnext_nano", "weights": "timm/convnext_nano.in12k"})[1].splitlines()[-1]
    assert "https://huggingface.co/timm/convnext_nano.in12k" in line
