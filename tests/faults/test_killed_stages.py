"""A killed data stage leaves complete files or none, and the next `dvc repro` restores its outputs."""

import random
import signal
import subprocess
import sys
import time

import pytest
import yaml

pytestmark = pytest.mark.slow

OUTPUTS = {
    "ingest": ["data/ingested/images.npy", "data/ingested/index.csv"],
    "clean": ["data/cleaned/decisions.csv", "data/cleaned/distances.csv", "data/cleaned/pairs.csv"],
    "balance": ["data/balanced/images.npy", "data/balanced/index.csv"],
}


def start(project, stage):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return project.start(sys.executable, "-m", f"stages.{stage}", **quiet)


@pytest.mark.parametrize("stage", OUTPUTS)
def test_killed_stage_leaves_complete_files_or_none(project, stage):
    outputs = [project.folder / name for name in OUTPUTS[stage]]
    undisturbed = {path: path.read_bytes() for path in outputs}
    begin = time.monotonic()
    assert start(project, stage).wait() == 0
    duration = time.monotonic() - begin
    moments = random.Random(0)
    for _ in range(5):
        for path in outputs:
            path.unlink(missing_ok=True)
        process = start(project, stage)
        time.sleep(moments.uniform(0.5, 1) * duration)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in outputs:
            if path.exists():
                assert path.read_bytes() == undisturbed[path], path.name
    project.run("dvc", "repro", "--quiet", stage)
    lock = yaml.safe_load((project.folder / "dvc.lock").read_text())
    committed = yaml.safe_load(project.run("git", "show", "HEAD:dvc.lock").stdout)
    assert lock["stages"][stage]["outs"] == committed["stages"][stage]["outs"]
