"""A full disk ends a stage in one clear line, and the next run succeeds once there is room."""

import os
import subprocess
from contextlib import contextmanager

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.root]

FOLDERS = {
    "synthesize": "data/raw",
    "ingest": "data/ingested",
    "clean": "data/cleaned",
    "split": "data/split",
    "balance": "data/balanced",
    "train": "models",
    "evaluate": "data/scored",
    "report": "reports",
}
LARGE = ["synthesize", "ingest", "balance", "train", "evaluate"]  # their outputs are longer than a page of memory
MEASURED = ["ingest", "clean", "split", "balance", "evaluate"]  # they write into metrics/, too
PAGE = 4096


@contextmanager
def small_disk(folder, room=0):
    """Mount a file system with `room` free bytes on `folder`."""
    if os.geteuid():
        pytest.skip("a small tmpfs needs root")
    options = f"size={PAGE + room // PAGE * PAGE}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode()}")
    try:
        (folder / "filler").write_bytes(b"0" * PAGE)
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def files(folder):
    """Return every file below `folder` by name, partial files included."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fails_in_one_line(project, stage, **variables):
    failed = project.run("python", "-m", f"stages.{stage}", status=2, **variables)
    errors = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "no space left on the disk" in errors[0]
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("stage", FOLDERS)
def test_full_disk_is_one_line_and_the_next_run_succeeds(project, stage):
    folder = project.folder / FOLDERS[stage]
    whole = files(folder)
    with small_disk(folder):
        fails_in_one_line(project, stage)
        assert [name for name in files(folder) if not name.startswith("live/")] == ["filler"]  # DVCLive's are its own
    project.run("python", "-m", f"stages.{stage}")
    assert {name for name in files(folder) if "live" not in name} >= {name for name in whole if "live" not in name}


@pytest.mark.parametrize("stage", LARGE)
def test_disk_full_during_a_write_leaves_complete_files(project, stage):
    folder = project.folder / FOLDERS[stage]
    whole = files(folder)
    with small_disk(folder, max(map(len, whole.values())) // 2):
        fails_in_one_line(project, stage)
        left = {name: content for name, content in files(folder).items() if not name.startswith("live/")}
    del left["filler"]
    assert left == {name: whole[name] for name in left}


@pytest.mark.parametrize("stage", MEASURED)
def test_full_disk_under_metrics_is_one_line(project, stage):
    with small_disk(project.folder / "metrics"):
        fails_in_one_line(project, stage)
        assert list(files(project.folder / "metrics")) == ["filler"]


def test_full_disk_under_the_checkpoint_is_one_line(project, tmp_path):
    with small_disk(tmp_path, 20 * PAGE):  # room for the lock, not for the weights
        fails_in_one_line(project, "train", LEAF_STATE=str(tmp_path))
        assert not [name for name in files(tmp_path) if name.endswith(".npz")]
    project.run("python", "-m", "stages.train", LEAF_STATE=str(tmp_path))
