"""The per-image predictions of published results are written correctly and reproduce the published accuracies."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from leaf.audit.shortcuts import Score
from leaf.evaluate.statistics import proportion_interval

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import runs


def test_predictions_of_all_recipes_are_written_by_image(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    (tmp_path / "benchmarks").mkdir()
    first = pd.DataFrame({"image": [3, 5], "label": [0, 1], "group": [3, 3], "predicted": [0, 0], "probabilities": 0})
    tables = {"default, seed 1": first, "plain, seed 1": first.assign(predicted=[1, 1])}
    path = runs.keep_predictions("leaves 0 folds image_size=64", tables)
    assert path == "benchmarks/predictions/leaves-0-folds-image-size-64.csv"
    assert (tmp_path / path).read_text().splitlines() == [
        'image,label,group,"default, seed 1","plain, seed 1"',
        "3,0,3,0,1",
        "5,1,3,0,1",
    ]


@pytest.mark.parametrize(("column", "name"), [(1, "all-classes"), (2, "healthy-or-unhealthy")])
def test_published_audit_accuracy_is_recomputed_from_predictions(column, name):
    table = pd.read_csv(runs.ROOT / f"benchmarks/predictions/audit-leaves-by-disease-{name}.csv")
    right = table["probe"].eq(table["label"]).to_numpy()
    published = json.loads(runs.TABLES.read_text(encoding="utf-8"))["audit_told"]["rows"][0][column]
    assert published == str(Score(right.mean(), *proportion_interval(right, table["group"].to_numpy())))
