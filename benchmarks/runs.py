"""Run many recipes through the pipeline's stages in parallel; shared by the scripts that train recipes.

A run is a folder with its own params.yaml, in which the stages run as under DVC. Runs with equal parameters share the
outputs of the data stages and of training. Many networks train in one process, because starting TensorFlow takes longer
than an epoch. Finished runs are not repeated, so an interrupted script continues where it stopped. After changing
the data or the code, use a new folder.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from leaf.experiments import with_settings
from leaf.params import validate
from leaf.python_api import new_project, run_stages
from leaf.store import read_array, read_json, read_table

ROOT = Path(__file__).resolve().parent.parent
TABLES = Path(__file__).with_name("tables.json")
_DATA = {"ingest": "data/ingested", "clean": "data/cleaned", "split": "data/split", "balance": "data/balanced"}
_DONE = "metrics/evaluate.json"


def run_all(settings: Sequence[Mapping[str, Any]], work: Path, jobs: int = 2) -> list[Path]:
    """Run the pipeline with each of `settings` (dotted keys) on top of params.yaml; return the folder of each run.

    `jobs` training runs execute in parallel, each on one core.

    Raises:
        LeafError: if a setting is invalid or a stage fails.
    """
    work = work.resolve()
    defaults = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    folders, waiting = [], defaultdict(list)
    for each in settings:
        values = with_settings(defaults, each).model_dump(mode="json")
        data = _folder(work, values, "data", list(_DATA))
        trained = _folder(work, values, "trained", [*_DATA, "train"])
        run = _folder(work, values, "run", [*_DATA, "train", "evaluate"])
        folders.append(run)
        if not (run / _DONE).exists() and run not in waiting[trained]:
            _prepare(data, values)
            if not (trained / "models/run.json").exists():
                _fresh(trained, values, dict.fromkeys(_DATA.values(), data))
            _fresh(run, values, {**dict.fromkeys(_DATA.values(), data), "models": trained})
            waiting[trained].append(run)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_one_core) as pool:
        for number, runs in enumerate(pool.map(_train_and_evaluate, waiting, waiting.values()), 1):
            print(f"{number} of {len(waiting)} training runs done: {' '.join(run.name for run in runs)}", flush=True)
    return folders


def draw(work: Path, settings: Mapping[str, Any]) -> Path:
    """Generate a synthetic data set (`drawn.*` in settings) and return its file."""
    defaults = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values = with_settings(defaults, settings).model_dump(mode="json")
    folder = _folder(work.resolve(), values, "drawn", ["synthesize"])
    file = folder / values["dataset"]
    if not file.exists():
        _stages(folder, values, ["synthesize"])
    return file


def figures(folder: Path) -> dict[str, Any]:
    """Return the metrics of a finished run: test.*, validation.*, baseline.* and the training metrics."""
    return {**read_json(folder / _DONE), **read_json(folder / "models/run.json")}


def scored(folder: Path, split: str = "test") -> pd.DataFrame:
    """Return the predictions of a finished run on one split: `image,label,predicted,group,probabilities`.

    `probabilities` contains the probabilities of all classes, float64 (C,) per image.
    """
    table = read_table(folder / "data/scored/predictions.csv", ["image", "split", "label", "predicted"])
    table["probabilities"] = list(read_array(folder / "data/scored/probabilities.npy").astype(np.float64))
    groups = read_table(folder / "data/cleaned/decisions.csv", ["image", "group"])
    table = table[table["split"] == split].merge(groups[["image", "group"]], on="image").sort_values("image")
    return table[["image", "label", "predicted", "group", "probabilities"]]


def read_split_images(folder: Path) -> tuple[np.ndarray, pd.DataFrame, dict[str, np.ndarray]]:
    """Return the images of a run, their labels and groups after `clean`, and the image indices of each split."""
    images = read_array(folder / "data/ingested/images.npy")
    decisions = read_table(folder / "data/cleaned/decisions.csv", ["image", "label", "group"]).set_index("image")
    splits = read_table(folder / "data/split/splits.csv", ["image", "split"], text=["split"])
    return images, decisions, {name: part["image"].to_numpy() for name, part in splits.groupby("split")}


def provenance() -> dict[str, Any]:
    """Return the commit, uncommitted files, package versions and command line of a measurement."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.rstrip()

    return {
        "commit": git("rev-parse", "HEAD"),
        "changed": sorted(line[3:] for line in git("status", "--porcelain", "--", "*.py", "*.yaml").splitlines()),
        "versions": {name: version(name) for name in ("keras", "tensorflow", "numpy", "scikit-learn")},
        "command": " ".join(["python", *(_plain(word) for word in sys.argv)]),
    }


def table_parser(description: str | None) -> argparse.ArgumentParser:
    """Return the parser of a script that records a table: `--no-record` leaves tables.json unchanged."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-record", dest="record", action="store_false", help="do not update tables.json")
    return parser


def keep_table(name: str, columns: Sequence[str], rows: Sequence[Sequence[str]], record: bool) -> None:
    """Print a table; with `record`, write it with its `provenance` to tables.json for docs/generate.py."""
    for cells in (columns, ["---"] * len(columns), *rows):
        print("| " + " | ".join(cells) + " |")
    if record:
        kept = json.loads(TABLES.read_text(encoding="utf-8")) if TABLES.exists() else {}
        kept[name] = {"columns": list(columns), "rows": [list(row) for row in rows], **provenance()}
        TABLES.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def keep_predictions(name: str, tables: Mapping[str, pd.DataFrame]) -> str:
    """Write benchmarks/predictions/NAME.csv, so that any paired interval can be recomputed, and return its path.

    Args:
        name: any text; characters other than letters, digits and dots become dashes.
        tables: results of `scored` by recipe and seed, all for the same images.
    """
    first = next(iter(tables.values()))
    wide = first[["image", "label", "group"]].assign(**{key: each["predicted"] for key, each in tables.items()})
    path = ROOT / "benchmarks/predictions" / f"{re.sub(r'[^A-Za-z0-9.]+', '-', name).strip('-')}.csv"
    path.parent.mkdir(exist_ok=True)
    wide.to_csv(path, index=False, lineterminator="\n")
    return str(path.relative_to(ROOT))


def _plain(word: str) -> str:
    """Remove the paths of this machine from a command-line argument."""
    path = Path(word)
    if not path.is_absolute():
        return re.sub(r"(\.\./)+(.*/)?", "", word)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def _folder(work: Path, values: Mapping[str, Any], kind: str, stages: Sequence[str]) -> Path:
    """Return a folder named after a hash of the parameters of `stages`."""
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    listed = [key for stage in stages for key in pipeline[stage].get("params", [])]
    keys = set(values) if {"params.yaml": None} in listed else {key.partition(".")[0] for key in listed} | {"dataset"}
    text = json.dumps({key: values[key] for key in sorted(keys)}, sort_keys=True)
    return work / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def prepare(work: Path, values: Mapping[str, Any]) -> Path:
    """Run ingest, clean, split and balance with the parameters `values`, and return the folder."""
    folder = _folder(work.resolve(), values, "data", list(_DATA))
    _prepare(folder, values)
    return folder


def _fresh(folder: Path, values: Mapping[str, Any], links: Mapping[str, Path]) -> None:
    """Create an empty project with the parameters `values`; `links` maps output folders to projects to link from."""
    shutil.rmtree(folder, ignore_errors=True)
    new_project(folder, validate(dict(values)))
    for path, owner in links.items():
        (folder / path).symlink_to(owner / path)


def _prepare(folder: Path, values: Mapping[str, Any]) -> None:
    """Run ingest, clean, split and balance unless they have run."""
    if not (folder / "metrics/balance.json").exists():
        _stages(folder, values, _DATA)


def _stages(folder: Path, values: Mapping[str, Any], names: Iterable[str]) -> None:
    _fresh(folder, values, {})
    run_stages(folder, names)


def _one_core() -> None:
    """Limit this process to one core: two parallel training runs are faster than two sequential ones on two cores."""
    os.environ.update(dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"), "1"))
    sys.path.insert(0, str(ROOT))


def _train_and_evaluate(trained: Path, runs: Sequence[Path]) -> Sequence[Path]:
    from stages import evaluate, train

    if not (trained / "models/run.json").exists():
        os.chdir(trained)
        train.main()
    for run in runs:
        os.chdir(run)
        evaluate.main()
    return runs
