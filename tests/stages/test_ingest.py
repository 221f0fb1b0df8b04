"""Test the `ingest` stage, run as `dvc repro` runs it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from leaf.errors import LeafError
from leaf.store import read_table
from stages import ingest


@pytest.fixture
def project(workspace):
    """Write a small data set."""
    images = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3)).astype(np.float32)
    labels = np.array(["healthy", "unhealthy"] * 5, object)
    np.savez(workspace / "leaves.npz", data=images, labels=labels)
    (workspace / "data/masks").mkdir(parents=True)
    (workspace / "data/labels.csv").write_text("file,label\n")
    (workspace / "params.yaml").write_text("dataset: leaves.npz\nimage_size: 16\n")
    return workspace


def run(project, root):
    """Run the stage in a separate process, as DVC does."""
    return subprocess.run(
        [sys.executable, "-m", "stages.ingest"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_stage_writes_images_and_their_index(project):
    ingest.main()
    index = read_table("data/ingested/index.csv", text=["source", "group", "split", "hash", "flags"])
    columns = ["image", "source", "label", "group", "split", "hash", "file_hash", "flags", "width", "height"]
    assert list(index.columns) == columns
    assert len(index) == len(np.load("data/ingested/images.npy")) == 10


def test_metrics_have_the_fixed_keys(project):
    ingest.main()
    assert json.loads((project / "metrics/ingest.json").read_text()) == {
        "images": 10,
        "classes": {"healthy": 5, "unhealthy": 5},
    }


def test_labels_follow_the_order_of_classes(project):
    (project / "params.yaml").write_text("dataset: leaves.npz\nimage_size: 16\nclasses: [unhealthy, healthy]\n")
    ingest.main()
    index = read_table("data/ingested/index.csv")
    assert index["label"].tolist() == [1, 0] * 5


def test_skipped_files_are_listed_in_a_table_and_printed(project, capsys):
    for name in ("healthy", "unhealthy"):
        (project / "d" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16), "green").save(project / "d" / name / "a.png")
    (project / "d/healthy/broken.jpg").write_bytes(b"x")
    (project / "params.yaml").write_text("dataset: d\nimage_size: 16\n")
    ingest.main()
    assert read_table("data/ingested/unreadable.csv", text=["file", "reason"])["file"].tolist() == [
        "healthy/broken.jpg"
    ]
    assert "left out 1 file: 'healthy/broken.jpg'" in capsys.readouterr().out


def test_masks_are_cropped_like_their_images(project, capsys):
    for name in ("healthy", "unhealthy"):
        (project / "d" / name).mkdir(parents=True)
        Image.new("RGB", (64, 32), "green").save(project / "d" / name / "a.jpg")
    mask = np.zeros((32, 64), np.uint8)
    mask[:, 40:] = 255
    (project / "m/healthy").mkdir(parents=True)
    Image.fromarray(mask > 0).save(project / "m/healthy/a.png")
    (project / "params.yaml").write_text("dataset: d\nimage_size: 16\nmasks: m\n")
    ingest.main()
    masks = np.load("data/ingested/masks.npy")
    assert masks[0].all(axis=0).tolist() == [False] * 12 + [True] * 4  # the part of the mask in the central square
    assert not masks[1].any()
    assert "masks for 1 image from m" in capsys.readouterr().out


def test_mask_array_is_empty_without_masks(project):
    ingest.main()
    assert np.load("data/ingested/masks.npy").shape == (0, 16, 16)


def test_damaged_mask_causes_a_one_line_error(project):
    (project / "m").mkdir()
    (project / "m/0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (project / "params.yaml").write_text("dataset: leaves.npz\nimage_size: 16\nmasks: m\n")
    with pytest.raises(LeafError, match=r"^masks: m/0\.png: .*white on the leaf"):
        ingest.main()


def test_missing_dataset_causes_a_one_line_error_with_status_2(project, request):
    (project / "params.yaml").write_text("dataset: nowhere.npz\n")
    done = run(project, request.config.rootpath)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "error: nowhere.npz: no such file. Set `dataset` to an .npz file or a folder."
    ]


def test_malicious_labels_are_a_one_line_error_and_run_no_code(project, request):
    class Call:
        def __reduce__(self):
            return os.system, ("touch executed",)

    labels = np.array([Call()] * 10, object)
    np.savez(project / "leaves.npz", data=np.full((10, 16, 16, 3), 9.0), labels=labels)
    done = run(project, request.config.rootpath)
    assert done.returncode == 2
    assert done.stderr.startswith("error: leaves.npz: labels contains posix.system")
    assert not (project / "executed").exists()
