"""Each suggestion appears only if the run's scores, history or image counts call for it."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from leaf.cli import FILES
from leaf.experiments import parse_settings, with_settings
from leaf.finished_run import Run
from leaf.report import advice


@pytest.fixture
def run(tables):
    """Return a run that triggers no suggestion about baselines, resolution or weights."""
    made = tables(quality=4.0, params={"weights": "imagenet"})
    made["index"] = made["index"].assign(width=48, height=48)
    return Run(**made)


def commands(run):
    return [entry.command for entry in advice.section(run)]


def seen(run):
    return " ".join(entry.observation for entry in advice.section(run))


def scored(run, split="test", **values):
    splits = run.scores["splits"]
    return dataclasses.replace(
        run, scores={**run.scores, "splits": {**splits, split: {**splits[split], **values} if values else None}}
    )


def with_baseline(run, **accuracies):
    found = run.scores["baseline"]
    changed = {name: {**found[name], "validation_accuracy": value} for name, value in accuracies.items()}
    return dataclasses.replace(run, scores={**run.scores, "baseline": {**found, **changed}})


def test_conflicting_copies_come_first(run):
    assert "of copies have different labels" in advice.section(run)[0].observation


def test_resolved_conflicts_are_not_reported(run):
    decisions = run.decisions.assign(label=0)
    assert "different labels" not in seen(dataclasses.replace(run, decisions=decisions))


def test_test_scores_do_not_affect_the_suggestions(run):
    block = run.scores["splits"]["test"]
    worst = dict.fromkeys(("accuracy", "accuracy_low", "balanced_accuracy", "roc_auc"), 0.01)
    worst |= {"accuracy_high": 0.99, "confusion": [[0, 9], [9, 0]], "calibration_error": 0.9, "log_loss": 9.0}
    kept = {"images": block["images"], "groups": block["groups"]}
    assert advice.section(scored(run, "test", **worst, **kept)) == advice.section(run)


def test_baseline_test_scores_do_not_affect_the_suggestions(run):
    baseline = {name: {**each, "accuracy": 1.0} for name, each in run.scores["baseline"].items()}
    better = dataclasses.replace(run, scores={**run.scores, "baseline": baseline})
    assert advice.section(better) == advice.section(run)


def test_better_baseline_suggests_an_audit_and_a_higher_resolution(run):
    made = with_baseline(run, tuned_color=1.0)
    made = dataclasses.replace(
        made, index=run.index.assign(width=640, height=200), decisions=run.decisions.assign(label=0)
    )
    assert commands(made)[:2] == ["leaf audit", "dvc exp run -S image_size=160"]
    assert "leaf audit" not in commands(run)


def test_a_missing_test_split_is_reported(run):
    assert "no test split" in seen(scored(run))
    assert "no test split" not in seen(run)


def test_overfitting_is_reported(run):
    history = run.history.assign(accuracy=0.99, validation_accuracy=0.7)
    assert "overfits" in seen(dataclasses.replace(run, history=history))
    assert "overfits" not in seen(dataclasses.replace(run, history=history.assign(accuracy=0.72)))


def test_only_unused_augmentation_is_suggested(run):
    history = run.history.assign(accuracy=0.99, validation_accuracy=0.7)
    rotated = dataclasses.replace(run, history=history, params={**run.params, "augmentation.rotation": 30})
    found = " ".join(commands(rotated))
    assert "augmentation.zoom=0.2" in found
    assert "augmentation.rotation" not in found
    everything = {**rotated.params, "augmentation.zoom": 0.2, "augmentation.cutmix": 1.0}
    assert "overfits" not in seen(dataclasses.replace(rotated, params=everything))


def test_few_test_groups_suggest_cross_validation(run):
    few, many = (scored(run, "test", images=count, groups=count) for count in (20, 20_000))
    folded = dataclasses.replace(few, params={**few.params, "folds": 5})
    assert "leaf folds" in commands(few)
    assert "leaf folds --show" in commands(folded)
    assert "leaf folds" not in commands(many)


def test_most_frequent_confusion_is_reported_if_it_is_common(run):
    pair = {"label": "rust", "predicted": "scab", "images": 3, "share": 0.25}
    matrix = [[9, 0, 0], [0, 9, 3], [0, 0, 12]]
    assert "25.0% of the rust images are predicted as scab" in seen(
        scored(run, "validation", confusion=matrix, worst_pairs=[pair])
    )
    rare = {**pair, "share": 0.02}
    assert "are predicted as" not in seen(scored(run, "validation", confusion=matrix, worst_pairs=[rare]))


def test_best_epoch_at_the_end_suggests_more_epochs(run):
    late = {**run.training, "best_epoch": len(run.history), "stopped": "epochs"}
    assert "dvc exp run -S epochs=48" in commands(dataclasses.replace(run, training=late))
    assert "dvc exp run -S epochs=48" not in commands(dataclasses.replace(run, training={**late, "stopped": "early"}))


def test_unequal_recalls_suggest_a_threshold_from_validation(run):
    assert "dvc exp run -S threshold=validation" in commands(scored(run, "validation", confusion=[[90, 10], [40, 60]]))
    assert "dvc exp run -S threshold=validation" not in commands(
        scored(run, "validation", confusion=[[90, 10], [12, 88]])
    )


def test_at_most_six_suggestions_are_shown(run):
    worst = {"confusion": [[90, 10], [40, 60]], "calibration_error": 0.3, "calibration_error_limit": 0.1}
    late = {**run.training, "best_epoch": len(run.history), "stopped": "epochs"}
    everything = with_baseline(scored(run, "validation", **worst), tuned_color=1.0)
    random = {**run.params, "weights": "random"}
    assert len(advice.section(dataclasses.replace(everything, training=late, params=random))) == 6


def test_every_suggested_command_is_valid(run):
    root = Path(__file__).parents[2]
    values = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    rows = yaml.safe_load((root / "experiments.yaml").read_text(encoding="utf-8"))
    late = dataclasses.replace(run, training={**run.training, "best_epoch": 24, "stopped": "epochs"})
    overfit = run.history.assign(accuracy=0.99, validation_accuracy=0.7)
    variants = [
        with_baseline(dataclasses.replace(run, index=run.index.assign(width=640, height=480)), tuned_color=1.0),
        scored(run, "validation", confusion=[[90, 10], [40, 60]]),
        scored(run, "validation", calibration_error=0.3, calibration_error_limit=0.1),
        dataclasses.replace(scored(run), params={**run.params, "weights": "random"}),
        late,
        dataclasses.replace(run, history=overfit),
    ]
    found = {command for variant in variants for command in commands(variant)} - {""}
    assert len(found) >= 9
    for command in found:
        program, verb, *rest = command.split()
        if (program, verb) == ("dvc", "exp"):
            settings = parse_settings(rest[2::2])
            with_settings(values, settings, command)
        else:
            assert verb in FILES
            assert verb != "run" or rest[0] in rows


def test_calibration_is_suggested_only_above_the_null_limit_on_validation(run):
    error = {"calibration_error": 0.09}
    assert "calibration error" in seen(scored(run, "validation", **error, calibration_error_limit=0.08))
    assert "calibration error" not in seen(scored(run, "validation", **error, calibration_error_limit=0.1))
    assert "calibration error" not in seen(scored(run, "test", calibration_error=0.3, calibration_error_limit=0.1))
