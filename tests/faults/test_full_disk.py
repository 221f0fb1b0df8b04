"""A full disk ends a stage in one clear line, and the next run succeeds once there is room."""

import os
import shutil
import subprocess

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


@pytest.mark.parametrize("stage", FOLDERS)
def test_a_full_disk_is_one_line_and_the_next_run_succeeds(copy, stage):
    if os.geteuid():
        pytest.skip("a small tmpfs needs root")
    folder = copy.folder / FOLDERS[stage]
    aside = folder.with_name(folder.name + "-aside")
    shutil.copytree(folder, aside)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode()}")
    try:
        (folder / "filler").write_bytes(b"0" * 4096)  # not a byte is left
        failed = copy.run("python", "-m", f"stages.{stage}", status=2)
        left = [path.name for path in folder.iterdir() if path.is_file()]
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    errors = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "no space left on the disk" in errors[0]
    assert "Traceback" not in failed.stderr
    assert left == ["filler"]
    copy.run("python", "-m", f"stages.{stage}")
    shutil.rmtree(aside)
