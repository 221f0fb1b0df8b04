"""A full disk stops a stage with a one-line error, and the next run succeeds once there is space."""

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
LARGE = ["synthesize", "ingest", "balance", "train", "evaluate"]  # stages with outputs larger than a memory page
MEASURED = ["ingest", "clean", "split", "balance", "evaluate"]  # all stages that write to metrics/ except train
PAGE = 4096


@pytest.fixture
def small_disk(tmpfs):
    """Return a context manager that mounts a file system with `free` bytes of space on a folder."""

    @contextmanager
    def mount(folder, free=0):
        with tmpfs(folder, PAGE + free // PAGE * PAGE):
            (folder / "filler").write_bytes(b"0" * PAGE)
            yield

    return mount


def files(folder):
    """Return the content of every file below `folder` by name, including partial files."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_one_line_error(project, stage, **variables):
    failed = project.run("python", "-m", f"stages.{stage}", status=2, **variables)
    errors = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "no space left on the disk" in errors[0]
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("stage", FOLDERS)
def test_full_disk_is_a_one_line_error_and_the_next_run_succeeds(project, small_disk, stage):
    folder = project.folder / FOLDERS[stage]
    before = files(folder)
    with small_disk(folder):
        assert_one_line_error(project, stage)
        assert [name for name in files(folder) if not name.startswith("live/")] == ["filler"]  # DVCLive writes live/
    project.run("python", "-m", f"stages.{stage}")
    assert {name for name in files(folder) if "live" not in name} >= {name for name in before if "live" not in name}


@pytest.mark.parametrize("stage", LARGE)
def test_disk_that_fills_during_a_write_contains_only_complete_files(project, small_disk, stage):
    folder = project.folder / FOLDERS[stage]
    before = files(folder)
    with small_disk(folder, max(map(len, before.values())) // 2):
        assert_one_line_error(project, stage)
        remaining = {name: content for name, content in files(folder).items() if not name.startswith("live/")}
    del remaining["filler"]
    assert remaining == {name: before[name] for name in remaining}


@pytest.mark.parametrize("stage", MEASURED)
def test_writing_metrics_to_a_full_disk_is_a_one_line_error(project, small_disk, stage):
    with small_disk(project.folder / "metrics"):
        assert_one_line_error(project, stage)
        assert list(files(project.folder / "metrics")) == ["filler"]


def test_writing_the_checkpoint_to_a_full_disk_is_a_one_line_error(project, small_disk, tmp_path):
    with small_disk(tmp_path, 20 * PAGE):  # enough space for the lock, but not for the weights
        assert_one_line_error(project, "train", LEAF_STATE=str(tmp_path))
        assert not [name for name in files(tmp_path) if name.endswith(".npz")]
    project.run("python", "-m", "stages.train", LEAF_STATE=str(tmp_path))
