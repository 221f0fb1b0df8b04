"""Fixtures: a small project after `clean`, with one planted case of each kind, and its review page."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from leaf.clean.clean import clean
from leaf.params import Params
from leaf.store import write_table

ROOT = Path(__file__).parents[2]
WRONG = [3, 8, 21, 33]  # images whose label differs from the prediction; 33 is a test image


def make_project(folder: Path, count: int = 48) -> None:
    """Create a git repository with `count` distinct images and two near duplicates, the first with a different label.

    `clean` has run, and all kept images have predictions. The predictions of the images in WRONG contradict the label.
    """
    random = np.random.default_rng(0)
    distinct = random.integers(0, 256, (count, 4, 4, 3)).repeat(6, axis=1).repeat(6, axis=2)
    images = np.concatenate([distinct, np.clip(distinct[[0, 2]] + 3, 0, 255)]).astype(np.uint8)
    label = np.arange(len(images)) % 2
    label[count] = 1 - label[0]
    label[count + 1] = label[2]
    hashes = [hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images]
    numbers = np.arange(len(images))
    index = pd.DataFrame({"image": numbers, "source": [f"{n}.png" for n in numbers], "label": label, "hash": hashes})
    index["file_hash"] = index["hash"].str[::-1]
    index = index.assign(group="", split="", flags=np.where(numbers == 5, "dark", ""))
    none = pd.DataFrame({name: pd.Series(dtype=str) for name in ("hash", "ruling", "label", "who", "why")})
    cleaned = clean(images, index, [], none, Params(same_photo=False))
    (folder / "data/ingested").mkdir(parents=True)
    np.save(folder / "data/ingested/images.npy", images)
    write_table(index, folder / "data/ingested/index.csv")
    names = pd.DataFrame({"label": [0, 1], "name": ["healthy", "unhealthy"], "images": np.bincount(label)})
    write_table(names, folder / "data/ingested/classes.csv")
    for name in ("decisions", "distances", "pairs"):
        write_table(getattr(cleaned, name), folder / f"data/cleaned/{name}.csv")
    kept = cleaned.decisions.query("kept == 1")["image"]
    split = pd.DataFrame({"image": kept, "split": np.where(kept % 11 == 0, "test", "validation")})
    write_table(split, folder / "data/split/splits.csv")
    shown = np.where(np.isin(kept, WRONG), 1 - label[kept], label[kept])
    second = (0.5 + (shown - 0.5) * (0.9 + kept % 7 / 100)).to_numpy(np.float32)
    table = split.assign(source=index["source"][kept], label=label[kept], predicted=shown, probability=second)
    write_table(table, folder / "data/scored/predictions.csv")
    np.save(folder / "data/scored/probabilities.npy", np.stack([1 - second, second], axis=1))
    shutil.copy(ROOT / "params.yaml", folder)
    shutil.copy(ROOT / ".gitattributes", folder)
    for name in ("overrides.csv", "pinned.csv", "labels.csv"):
        header = (ROOT / "data" / name).read_text().splitlines()[0]
        (folder / "data" / name).write_text(header + "\n")
    (folder / ".gitignore").write_text("/data/ingested/\n/data/cleaned/\n/data/split/\n/data/scored/\n.*.lock\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "user.name", "Ada")
    git(folder, "config", "user.email", "ada@example.org")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "a run")


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reviewed") / "project"
    folder.mkdir()
    make_project(folder)
    return folder


@pytest.fixture
def reviewed(template: Path, tmp_path: Path) -> Path:
    """Return the folder of a fresh copy of the project."""
    return Path(shutil.copytree(template, tmp_path / "project"))


@pytest.fixture(scope="session")
def loaded(template: Path) -> Any:
    """Load the template project as `leaf review` does."""
    from leaf.review.session import load_review

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(template)
        return load_review(["workspace"], template)


@pytest.fixture
def review(loaded: Any, reviewed: Path) -> Any:
    """Return a review that writes its decisions to a fresh copy of the project."""
    return replace(loaded, folder=reviewed)


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[subprocess.Popen, str]]]:
    """Return a function that starts `leaf review` in a folder and returns the process and its URL."""
    running: list[subprocess.Popen] = []

    def serve(folder: Path, *options: str) -> tuple[subprocess.Popen, str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", "from leaf.cli import main; main()", "review", "--quiet", *options]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env=environment)
        running.append(process)
        address = process.stdout.readline().strip()
        if not address:
            pytest.fail(f"leaf review exited {process.wait()}")
        return process, address

    yield serve
    for process in running:
        process.kill()
        process.wait()


def rows(folder: Path, name: str = "overrides") -> pd.DataFrame:
    return pd.read_csv(folder / f"data/{name}.csv", dtype=str, keep_default_na=False)
