"""`leaf results` shows the metrics of a single run only."""

import hashlib
import json
import shutil
import time
from pathlib import Path

import pytest
import yaml

from leaf.errors import LeafError
from leaf.report.metrics_summary import _old_stages, summarize_metrics

ROOT = Path(__file__).parents[2]
STAGES = {  # name: (inputs, outputs)
    "ingest": ((), ("data/ingested/index.csv", "metrics/ingest.json")),
    "clean": (("data/ingested/index.csv",), ("data/cleaned/decisions.csv", "metrics/clean.json")),
    "split": (("data/cleaned/decisions.csv",), ("data/split/splits.csv", "metrics/split.json")),
    "balance": (("data/split/splits.csv",), ("data/balanced/index.csv", "metrics/balance.json")),
    "train": (("data/split/splits.csv", "data/balanced/index.csv"), ("models/model.keras", "metrics/train.json")),
    "evaluate": (("models/model.keras", "data/split/splits.csv"), ("metrics/evaluate.json",)),
}
METRICS = {
    "ingest": {"images": 9, "classes": {"fresh": 5, "wilted": 4}},
    "clean": {"outliers": 0, "duplicates": 1, "near_duplicates": 0, "kept": 8},
    "split": {"train": 4, "validation": 2, "test": 2, "shared_groups": 0},
    "balance": {"synthetic": 1, "after": {"fresh": 3, "wilted": 3}},
    "train": {"epochs": 3, "best_epoch": 2, "best_validation_accuracy": 0.5},
    "evaluate": {
        "test": {
            "accuracy": 0.875,
            "accuracy_low": 0.5,
            "accuracy_high": 1.0,
            "balanced_accuracy": 0.75,
            "recall": {"fresh": 1.0, "wilted": 0.5},
        },
        "baseline": {
            "majority_accuracy": 0.5,
            "histogram_accuracy": 0.5,
            "joint_histogram_accuracy": 0.5,
            "tuned_color_accuracy": 0.5,
        },
    },
}


def run(folder, *stages):
    """Write the metrics and the dvc.lock entries of `stages` as if they had just run."""
    lock = folder / "dvc.lock"
    found = yaml.safe_load(lock.read_text()) if lock.exists() else {"schema": "2.0", "stages": {}}
    md5 = {out["path"]: out["md5"] for stage in found["stages"].values() for out in stage["outs"]}
    for name in stages:
        reads, writes = STAGES[name]
        for path in writes:
            kind = path.removeprefix("metrics/").removesuffix(".json")
            if path.startswith("metrics/"):
                (folder / path).write_text(json.dumps(METRICS[kind] | {"run": time.time_ns()}))
                md5[path] = hashlib.md5((folder / path).read_bytes()).hexdigest()
            else:
                md5[path] = hashlib.md5(f"{path} {md5.get(path)}".encode()).hexdigest()
        entry = {"deps": [{"path": path, "md5": md5[path]} for path in reads]}
        found["stages"][name] = entry | {"outs": [{"path": path, "md5": md5[path]} for path in writes]}
    lock.write_text(yaml.safe_dump(found))


@pytest.fixture
def project(tmp_path):
    (tmp_path / "metrics").mkdir()
    run(tmp_path, *STAGES)
    return tmp_path


def first_words(folder):
    return [line.split()[0] for line in summarize_metrics(folder).splitlines() if line]


def test_a_complete_run_is_summarized_completely(project):
    assert first_words(project) == ["images", "split", "balance", "training", "test", "recall,", "baselines", "Report"]


def test_outdated_metrics_are_skipped_and_listed_after_a_partial_run(project):
    run(project, "ingest", "clean", "split")
    assert first_words(project) == ["images", "split", "skipped", "Report"]
    assert "skipped    balance, train, evaluate:" in summarize_metrics(project)
    run(project, "balance", "train", "evaluate")
    assert first_words(project) == ["images", "split", "balance", "training", "test", "recall,", "baselines", "Report"]


def test_a_failed_stage_without_metrics_is_skipped(project):
    (project / "metrics/evaluate.json").unlink()
    assert first_words(project) == ["images", "split", "balance", "training", "skipped", "Report"]


def test_metrics_not_written_by_the_recorded_run_are_skipped(project):
    (project / "metrics/evaluate.json").write_text(json.dumps(METRICS["evaluate"]))
    assert "skipped    evaluate" in summarize_metrics(project)


def test_an_invalid_lock_file_gives_a_one_line_error(project):
    (project / "dvc.lock").write_text("[")
    with pytest.raises(LeafError, match=r"^dvc\.lock: not a DVC lock"):
        summarize_metrics(project)


def test_the_committed_lock_matches_the_committed_metrics(tmp_path):
    shutil.copytree(ROOT / "metrics", tmp_path / "metrics")
    shutil.copy(ROOT / "dvc.lock", tmp_path)
    assert _old_stages(tmp_path) == set()
    (tmp_path / "metrics/split.json").write_text("{}")
    assert _old_stages(tmp_path) == {"split"}


@pytest.mark.parametrize(("probe", "hint"), [(True, "leaf run transfer"), (False, "dvc exp run -S dropout=0.2")])
def test_hint_is_valid_for_the_run(tmp_path, probe, hint):
    for name, values in METRICS.items():
        (tmp_path / "metrics").mkdir(exist_ok=True)
        (tmp_path / f"metrics/{name}.json").write_text(json.dumps(values))
    (tmp_path / "models").mkdir()
    (tmp_path / "models/run.json").write_text(json.dumps({"probe": {"strength": 1.0}} if probe else {}))
    assert f"Experiment  {hint} " in summarize_metrics(tmp_path)


def test_the_suggested_image_is_a_removed_one(project):
    (project / "data/cleaned").mkdir(parents=True)
    (project / "data/cleaned/decisions.csv").write_text("image,kept\n0,1\n1,1\n7,0\n")
    assert "leaf why 7" in summarize_metrics(project)
