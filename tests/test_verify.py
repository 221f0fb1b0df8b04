"""`leaf verify` reports which stages of a rerun differ, and why."""

import pytest

from leaf.verify import compare_reruns

LOCK = {
    "ingest": {"outs": [{"path": "data/ingested/images.npy", "md5": "1"}]},
    "evaluate": {
        "deps": [{"path": "models/model.keras", "md5": "a"}],
        "params": {"params.yaml": {"threshold": 0.5}},
        "outs": [{"path": "metrics/evaluate.json", "md5": "m"}],
    },
}
METRICS = {"metrics/evaluate.json": {"test": {"accuracy": 0.90, "roc_auc": None}}}


def rerun(accuracy, threshold=0.5):
    lock = {
        "ingest": LOCK["ingest"],
        "evaluate": {
            "deps": [{"path": "models/model.keras", "md5": "b"}],
            "params": {"params.yaml": {"threshold": threshold}},
            "outs": [{"path": "metrics/evaluate.json", "md5": "n"}],
        },
    }
    return lock, {"metrics/evaluate.json": {"test": {"accuracy": accuracy, "roc_auc": None}}}


def test_stage_with_equal_hashes_is_reported_as_identical():
    assert [result.outcome for result in compare_reruns(LOCK, LOCK, METRICS, METRICS)] == ["identical", "identical"]


@pytest.mark.parametrize(("accuracy", "outcome"), [(0.91, "within tolerance"), (0.95, "different")])
def test_outputs_that_differ_are_compared_by_scores(accuracy, outcome):
    lock, metrics = rerun(accuracy)
    first, second = compare_reruns(LOCK, lock, METRICS, metrics)
    assert first.outcome == "identical"
    assert second.outcome == outcome
    assert "test.accuracy" in second.why
    assert "deps models/model.keras" in second.why


def test_page_with_a_different_date_is_reported_as_identical():
    page = {"deps": [{"path": "models/history.csv", "md5": "h"}], "outs": [{"path": "reports/report.html", "md5": "1"}]}
    dated = {**page, "outs": [{"path": "reports/report.html", "md5": "2"}]}
    assert compare_reruns({"report": page}, {"report": dated}, {}, {})[0].outcome == "identical"
    other = {**dated, "deps": [{"path": "models/history.csv", "md5": "g"}]}
    found = compare_reruns({"report": page}, {"report": other}, {}, {})[0]
    assert (found.outcome, "deps models/history.csv" in found.why) == ("inputs differ", True)


def test_different_outputs_from_equal_inputs_without_scores_are_reported_as_different():
    after = {"ingest": {"outs": [{"path": "data/ingested/images.npy", "md5": "2"}]}}
    assert compare_reruns({"ingest": LOCK["ingest"]}, after, {}, {})[0].outcome == "different"


def test_number_of_epochs_is_not_compared():
    stage = {"outs": [{"path": "metrics/train.json", "md5": "1"}]}
    again = {"outs": [{"path": "metrics/train.json", "md5": "2"}]}
    metrics = [{"metrics/train.json": {"best_epoch": epoch, "best_validation_accuracy": 0.9}} for epoch in (18, 32)]
    assert compare_reruns({"train": stage}, {"train": again}, *metrics)[0].outcome == "within tolerance"


def test_changed_parameter_is_reported_as_the_reason():
    lock, metrics = rerun(0.5, threshold=0.4)
    assert "params threshold" in compare_reruns(LOCK, lock, METRICS, metrics)[1].why


def test_missing_score_is_reported_as_different():
    lock, metrics = rerun(None)
    assert compare_reruns(LOCK, lock, METRICS, metrics)[1].outcome == "different"
