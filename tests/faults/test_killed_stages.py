"""A killed data stage leaves complete files or none, and the next `dvc repro` restores its outputs."""

import random
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import yaml

pytestmark = pytest.mark.slow

OUTPUTS = {
    "ingest": ["data/ingested/images.npy", "data/ingested/index.csv"],
    "clean": ["data/cleaned/decisions.csv", "data/cleaned/distances.csv", "data/cleaned/pairs.csv"],
    "balance": ["data/balanced/images.npy", "data/balanced/index.csv"],
}


def start(project, stage):
    return subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=project.folder,
        env=project.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


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


def test_restored_images_and_index_have_the_same_length(project):
    images = np.load(project.folder / "data/ingested/images.npy", mmap_mode="r")
    index = pd.read_csv(project.folder / "data/ingested/index.csv")
    assert len(images) == len(index)
