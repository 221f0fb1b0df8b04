"""Peak memory of the stages on large data sets stays below the limits stated in docs/reliability.md."""

import os
import subprocess
import sys
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from leaf.params import Params
from leaf.python_api import new_project

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MIB = 2**20


RUN = """
import resource, subprocess, sys
done = subprocess.run([sys.executable, "-m", sys.argv[1]], capture_output=True, text=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024 if done.returncode == 0 else done.stderr)
sys.exit(done.returncode)
"""


def peak_mib(folder, stage):
    """Run a stage as DVC does and return its peak memory in MiB, including memory-mapped pages.

    A small process in between starts the stage, because on Linux a new process inherits its parent's peak.
    """
    done = subprocess.run(
        [sys.executable, "-c", RUN, f"stages.{stage}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return float(done.stdout)


def write_project(folder, count, side=32):
    """Write a project with the outputs of `ingest` for random smooth images, of which 3% are exact copies."""
    new_project(folder, Params())
    rng = np.random.default_rng(0)
    ingested = folder / "data/ingested"
    ingested.mkdir(parents=True)
    images = np.lib.format.open_memmap(ingested / "images.npy", "w+", np.uint8, (count, side, side, 3))
    for start in range(0, count, 10000):
        coarse = rng.integers(0, 256, (min(10000, count - start), 4, 4, 3), np.uint8)
        fine = np.repeat(np.repeat(coarse, side // 4, 1), side // 4, 2)
        images[start : start + len(fine)] = fine
    copies = rng.choice(np.arange(1, count), int(0.03 * count), replace=False)
    for copy in copies:
        images[copy] = images[copy - 1]
    table = pd.DataFrame(
        {
            "image": np.arange(count),
            "source": np.arange(count).astype(str),
            "label": rng.integers(0, 2, count),
            "group": "",
            "split": "",
            "hash": [blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images],
            "flags": "",
        }
    )
    table.to_csv(ingested / "index.csv", index=False)
    (ingested / "classes.csv").write_text("label,name,images\n0,healthy,1\n1,unhealthy,1\n")
    images.flush()
    return folder


@pytest.mark.full
def test_clean_on_200_000_images_stays_under_2_gib(tmp_path):
    folder = write_project(tmp_path, 200_000)
    assert peak_mib(folder, "clean") < 2048
    metrics = yaml.safe_load((folder / "metrics/clean.json").read_text())
    assert metrics["duplicates"] >= 5_900


def test_ingest_of_a_folder_of_20_000_files_stays_under_600_mib(tmp_path):
    images = tmp_path / "images"
    rng = np.random.default_rng(0)
    for label in ("healthy", "unhealthy"):
        (images / label).mkdir(parents=True)
        for number in range(10_000):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).resize((64, 64)).save(images / label / f"{number}.jpg", quality=60)
    folder = tmp_path / "project"
    new_project(folder, Params(dataset=str(images), image_size=96))
    assert peak_mib(folder, "ingest") < 600 + 20_000 * 96 * 96 * 3 / MIB  # the peak includes the memory-mapped output
    metrics = yaml.safe_load((folder / "metrics/ingest.json").read_text())
    assert metrics["images"] == 20_000


def test_balance_on_20_000_images_stays_under_2_gib(tmp_path):
    folder = write_project(tmp_path, 20_000)
    label = (np.arange(20_000) % 3 == 0).astype(int)
    (folder / "data/cleaned").mkdir()
    (folder / "data/split").mkdir()
    numbers = np.arange(20_000)
    decisions = pd.DataFrame({"image": numbers, "label": label, "kept": 1, "reason": "", "reference": ""})
    decisions.assign(distance="", group=numbers, copy_of="").to_csv(folder / "data/cleaned/decisions.csv", index=False)
    splits = np.where(numbers % 10 == 0, "validation", np.where(numbers % 10 == 1, "test", "train"))
    pd.DataFrame({"image": numbers, "split": splits}).to_csv(folder / "data/split/splits.csv", index=False)
    assert peak_mib(folder, "balance") < 2048
    metrics = yaml.safe_load((folder / "metrics/balance.json").read_text())
    assert metrics["after"]["healthy"] == metrics["after"]["unhealthy"]
