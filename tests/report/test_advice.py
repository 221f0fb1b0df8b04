"""Advice appears where the tables show a reason, and only there."""

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
    return Run(**tables(quality=4.0, params={"weights": "imagenet"}))


def seen(run, conflicting=0):
    return " ".join(entry["seen"] for entry in advice.section(run, conflicting))


def scored(run, split="test", **values):
    splits = run.scores["splits"]
    return dataclasses.replace(
        run, scores={**run.scores, "splits": {**splits, split: {**splits[split], **values} if values else None}}
    )


def test_conflicts_come_first(run):
    assert advice.section(run, 3)[0]["seen"].startswith("3 groups")


def test_an_interval_that_reaches_a_baseline_is_said(run):
    assert "not shown to be better" in seen(scored(run, accuracy_low=0.7))
    assert "not shown to be better" not in seen(scored(run, accuracy_low=0.9))


def test_a_missing_test_split_is_said(run):
    assert "No images were kept for a test" in seen(scored(run))
    assert "No images were kept for a test" not in seen(run)


def test_memorising_is_said(run):
    history = run.history.assign(accuracy=0.99, validation_accuracy=0.7)
    assert "it memorises" in seen(dataclasses.replace(run, history=history))
    assert "it memorises" not in seen(dataclasses.replace(run, history=history.assign(accuracy=0.72)))


def test_only_what_the_run_did_not_vary_yet_is_proposed(run):
    history = run.history.assign(accuracy=0.99, validation_accuracy=0.7)
    turned = dataclasses.replace(run, history=history, params={**run.params, "augmentation.rotation": 30})
    commands = " ".join(entry["command"] for entry in advice.section(turned, 0))
    assert "augmentation.zoom=0.2" in commands
    assert "augmentation.rotation" not in commands
    all_of_it = {**turned.params, "augmentation.zoom": 0.2, "augmentation.cutmix": 1.0}
    assert "it memorises" not in seen(dataclasses.replace(turned, params=all_of_it))


def test_a_wide_interval_asks_for_folds_and_a_fold_for_all_of_them(run):
    wide = scored(run, accuracy_low=0.8, accuracy_high=0.95)
    folded = dataclasses.replace(wide, params={**wide.params, "folds": 5})
    for one, command in ((wide, "leaf folds"), (folded, "leaf folds --show")):
        assert command in [entry["command"] for entry in advice.section(one, 0)]


def test_of_many_classes_the_commonest_confusion_is_said(run):
    pair = {"label": "rust", "predicted": "scab", "images": 3, "share": 0.25}
    matrix = [[9, 0, 0], [0, 9, 3], [0, 0, 12]]
    assert "25.0% of the rust images are called scab." in seen(
        scored(run, "validation", confusion=matrix, worst_pairs=[pair])
    )
    rare = {**pair, "share": 0.02}
    assert "are called" not in seen(scored(run, "validation", confusion=matrix, worst_pairs=[rare]))


def test_training_that_ran_out_of_epochs_is_said(run):
    late = {**run.training, "best_epoch": len(run.history), "stopped": "epochs"}
    assert "epochs ran out" in seen(dataclasses.replace(run, training=late))
    assert "epochs ran out" not in seen(dataclasses.replace(run, training={**late, "stopped": "early"}))


def test_a_class_that_is_found_less_is_said(run):
    assert "are found" in seen(scored(run, "validation", confusion=[[90, 10], [40, 60]]))
    assert "are found" not in seen(scored(run, "validation", confusion=[[90, 10], [12, 88]]))


def test_at_most_six_entries(run):
    worst = {"confusion": [[90, 10], [40, 60]], "calibration_error": 0.3, "calibration_error_limit": 0.1}
    everything = scored(scored(run, accuracy_low=0.5), "validation", **worst)
    assert len(advice.section(everything, 9)) == 6


def test_every_command_can_be_run(run):
    root = Path(__file__).parents[2]
    values = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    rows = yaml.safe_load((root / "experiments.yaml").read_text(encoding="utf-8"))
    late = dataclasses.replace(run, training={**run.training, "best_epoch": 24, "stopped": "epochs"})
    memorised = run.history.assign(accuracy=0.99, validation_accuracy=0.7)
    variants = [
        scored(run, accuracy_low=0.5, accuracy_high=0.9),
        scored(run, "validation", confusion=[[90, 10], [40, 60]]),
        scored(run, "validation", calibration_error=0.3, calibration_error_limit=0.1),
        dataclasses.replace(scored(run), params={**run.params, "weights": "random"}),
        late,
        dataclasses.replace(run, history=memorised),
    ]
    commands = {entry["command"] for variant in variants for entry in advice.section(variant, 1)} - {""}
    assert len(commands) >= 8
    for command in commands:
        program, verb, *rest = command.split()
        if (program, verb) == ("dvc", "exp"):
            settings = parse_settings(rest[2::2])
            with_settings(values, settings, command)
        else:
            assert verb in FILES
            assert verb != "run" or rest[0] in rows


def test_calibration_advice_needs_an_error_above_the_null_limit_on_validation(run):
    error = {"calibration_error": 0.09}
    assert "calibration error" in seen(scored(run, "validation", **error, calibration_error_limit=0.08))
    assert "calibration error" not in seen(scored(run, "validation", **error, calibration_error_limit=0.1))
    assert "calibration error" not in seen(scored(run, "test", calibration_error=0.3, calibration_error_limit=0.1))
