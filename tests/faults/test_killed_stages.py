"""A data stage that is killed at any moment leaves whole files or none, and the next `dvc repro` mends it."""

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
def test_a_killed_stage_leaves_whole_files_or_none(project, stage):
    outputs = [project.folder / name for name in OUTPUTS[stage]]
    whole = {path: path.read_bytes() for path in outputs}
    begun = time.monotonic()
    assert start(project, stage).wait() == 0
    lasts = time.monotonic() - begun
    moments = random.Random(0)
    for _ in range(5):
        for path in outputs:
            path.unlink(missing_ok=True)
        process = start(project, stage)
        time.sleep(moments.uniform(0.5, 1) * lasts)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in outputs:
            if path.exists():
                assert path.read_bytes() == whole[path], path.name
    project.run("dvc", "repro", "--quiet", stage)
    lock = yaml.safe_load((project.folder / "dvc.lock").read_text())
    committed = yaml.safe_load(project.run("git", "show", "HEAD:dvc.lock").stdout)
    assert lock["stages"][stage]["outs"] == committed["stages"][stage]["outs"]


def test_the_files_that_the_next_stage_reads_belong_together(project):
    images = np.load(project.folder / "data/ingested/images.npy", mmap_mode="r")
    index = pd.read_csv(project.folder / "data/ingested/index.csv")
    assert len(images) == len(index)
