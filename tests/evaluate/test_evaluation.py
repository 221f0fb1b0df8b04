"""Test the complete evaluation with a simulated network."""

import numpy as np
import pandas as pd
import pytest

from leaf.evaluate import evaluation as scoring
from leaf.evaluate.evaluation import NO_TEST
from leaf.evaluate.statistics import proportion_interval

IMAGES = np.random.default_rng(1).integers(0, 256, (90, 6, 6, 3), np.uint8)
LABELS = np.arange(90) % 2


def table(splits=("train", "validation", "test"), folders=("a", "b")):
    return pd.DataFrame(
        {
            "image": np.arange(90),
            "label": LABELS,
            "group": np.arange(90),
            "split": [splits[number // 30 % len(splits)] for number in range(90)],
            "source": [f"{folders[number % len(folders)]}/{number}.jpg" for number in range(90)],
        }
    )


def predict_proba(rows, temperature):
    """Return overconfident probabilities that are wrong for every seventh image."""
    logits = np.where(LABELS[rows] == 1, 4.0, -4.0) * np.where(rows % 7 == 0, -1, 1) * (1 + rows / 500)
    return both(1 / (1 + np.exp(-logits / temperature)))


def both(p):
    """Return probabilities (N, 2), given those of the second class."""
    return np.stack([1 - p, p], axis=1)


def evaluate(images, given, network, threshold, calibrate, classes=("healthy", "unhealthy")):
    return scoring.evaluate(images, given, network, classes, threshold, calibrate)


@pytest.fixture(scope="module", autouse=True)
def one_strength():
    """Use a single regularization strength to save time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("leaf.evaluate.baselines.STRENGTHS", np.ones(1))
        yield


@pytest.fixture(scope="module")
def result():
    return evaluate(IMAGES, table(), predict_proba, 0.5, "none")


def test_predictions_cover_validation_and_test(result):
    assert result.predictions["image"].tolist() == list(range(30, 90))
    assert result.predictions.columns.tolist() == [*("image", "source", "split", "label", "predicted", "probability")]


def test_intervals_use_groups_and_the_summary_counts_them(result):
    """The four misclassified test images, 63, 70, 77 and 84, show the same plant."""
    plants = np.where(np.arange(90) % 7 == 0, 0, np.arange(90))
    grouped = evaluate(IMAGES, table().assign(group=plants), predict_proba, 0.5, "none")
    alone, block = (each.scores["splits"]["test"] for each in (result, grouped))
    right = grouped.predictions[grouped.predictions["split"] == "test"].eval("label == predicted").to_numpy()
    assert (block["accuracy_low"], block["accuracy_high"]) == proportion_interval(right, plants[60:])
    assert block["accuracy_low"] < alone["accuracy_low"]
    assert "on 30 images in 27 groups" in grouped.summary
    assert "groups" not in result.summary


def test_the_metrics_have_exactly_the_fixed_keys(result):
    assert {name: list(block) for name, block in result.metrics.items()} == {
        "test": [
            *("accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy", "macro_recall"),
            *("f1", "roc_auc", "log_loss", "calibration_error", "recall"),
        ],
        "validation": ["accuracy", "roc_auc"],
        "baseline": [f"{name}_accuracy" for name in ("majority", "histogram", "joint_histogram", "tuned_color")],
    }


def test_accuracy_is_computed_per_split(result):
    assert result.metrics["test"]["accuracy"] == pytest.approx(26 / 30)  # wrong: images 63, 70, 77 and 84
    assert result.metrics["validation"]["accuracy"] == pytest.approx(26 / 30)  # wrong: images 35, 42, 49 and 56


def test_the_gallery_starts_with_the_most_confident_mistakes_of_test(result):
    mistakes = result.gallery.query("kind == 'mistake'")
    assert mistakes["image"].tolist() == [84, 77, 70, 63]
    assert result.gallery["row"].tolist() == list(range(len(result.gallery)))


def test_a_mistake_has_a_second_row_for_the_second_class(result):
    again = result.gallery.query("kind == 'runner_up'")
    assert again["image"].tolist() == [84, 77, 70, 63]
    assert again["shown"].tolist() == LABELS[[84, 77, 70, 63]].tolist()


def test_the_gallery_has_at_most_twelve_different_images_of_each_kind(result):
    shown = result.gallery.query("kind != 'runner_up'")
    assert shown["image"].is_unique
    assert shown["kind"].value_counts().to_dict() == {"uncertain": 12, "mistake": 4}


def test_uncertain_images_are_sorted_by_distance_to_the_threshold(result):
    assert result.gallery.query("kind == 'uncertain'")["image"].tolist()[:3] == [60, 61, 62]


def test_each_folder_has_its_own_accuracy(result):
    rows = result.scores["by_folder"]
    assert [(row["folder"], row["images"]) for row in rows] == [("a", 15), ("b", 15)]
    assert rows[0]["low"] < rows[0]["accuracy"] < rows[0]["high"]


def test_a_single_folder_is_not_listed():
    assert evaluate(IMAGES, table(folders=("a",)), predict_proba, 0.5, "none").scores["by_folder"] == []


def test_without_a_test_split_validation_is_scored_with_a_note():
    alone = evaluate(IMAGES, table(splits=("train", "validation")), predict_proba, 0.5, "none")
    assert alone.scores["note"] == NO_TEST
    assert alone.scores["splits"]["test"] is None
    recall = alone.metrics["test"].pop("recall")
    assert {*alone.metrics["test"].values(), *recall.values()} == {None}
    assert alone.summary.startswith("validation: ")
    assert alone.scores["baseline"]["majority"]["images"] == 30


def test_a_given_threshold_is_used(result):
    assert evaluate(IMAGES, table(), predict_proba, 0.999, "none").predictions["predicted"].sum() == 0
    assert result.scores["threshold_source"] == "given"


def test_the_threshold_is_selected_on_validation_only():
    def shifted(rows, temperature):
        """Return probabilities with optimal thresholds of 0.8 on validation and 0.2 on test."""
        return both(np.where(rows < 60, 0.8, 0.2) + np.where(LABELS[rows] == 1, 0.1, -0.1))

    found = evaluate(IMAGES, table(), shifted, "validation", "none")
    assert found.scores["threshold"] == pytest.approx(0.8)
    assert found.scores["threshold_source"] == "validation"
    assert found.metrics["test"]["accuracy"] == 0.5


def test_a_temperature_calibrates_an_overconfident_network(result):
    calibrated = evaluate(IMAGES, table(), predict_proba, 0.5, "temperature")
    assert calibrated.scores["temperature"] > 1.5
    assert calibrated.metrics["test"]["calibration_error"] < result.metrics["test"]["calibration_error"] / 2
    blocks, plain = calibrated.scores["splits"], result.scores["splits"]
    for split in ("validation", "test"):
        before = {key: plain[split][key] for key in ("log_loss", "calibration_error")}
        assert blocks[split]["before_calibration"] == before
    assert "expected calibration error 0.1" in calibrated.summary
    assert " before, 0.0" in calibrated.summary


def test_without_calibration_the_temperature_is_1(result):
    assert result.scores["splits"]["test"]["before_calibration"] is None
    assert "temperature" not in result.summary
    assert result.scores["temperature"] == 1


def test_test_images_do_not_affect_any_selection():
    """The threshold and the temperature must not depend on test labels."""
    changed = table()
    changed.loc[changed["split"].eq("test"), "label"] = 0
    settings = {"threshold": "validation", "calibrate": "temperature"}
    before, after = (evaluate(IMAGES, given, predict_proba, **settings).scores for given in (table(), changed))
    assert (before["threshold"], before["temperature"]) == (after["threshold"], after["temperature"])


def test_dvc_plots_show_test_with_class_names(result):
    block = result.scores["splits"]["test"]
    assert result.roc.to_dict("list") == block["roc"]
    counts = result.answers.groupby(["label", "predicted"]).size().unstack(fill_value=0)
    assert (counts.index.tolist(), counts.columns.tolist()) == (["healthy", "unhealthy"],) * 2
    assert counts.to_numpy().tolist() == block["confusion"]


def test_multiclass_roc_curve_has_the_mean_area():
    result = evaluate(IMAGES, table().assign(label=np.arange(90) % 9), nine, 0.5, "none", NINE)
    area = np.trapezoid(result.roc["tpr"], result.roc["fpr"])
    assert area == pytest.approx(result.metrics["test"]["roc_auc"], abs=0.02)
    assert result.roc["tpr"].is_monotonic_increasing


NINE = [f"class {number}" for number in range(9)]


def nine(rows, temperature):
    """Return probabilities that favor the class after the correct one for every seventh image."""
    logits = np.eye(9)[(rows % 9 + (rows % 7 == 0)) % 9] * 4 + np.eye(9)[rows % 9] * 2
    powers = np.exp(logits / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def test_nine_classes_have_scores_and_probabilities():
    result = evaluate(IMAGES, table().assign(label=np.arange(90) % 9), nine, 0.5, "none", NINE)
    assert result.probabilities.shape == (60, 9)
    assert result.probabilities.dtype == np.float32
    shown = result.probabilities[np.arange(60), result.predictions["predicted"]]
    np.testing.assert_array_equal(shown, result.predictions["probability"].astype(np.float32))
    wrong = {image % 9 for image in range(60, 90) if image % 7 == 0}
    recall = result.metrics["test"]["recall"]
    assert list(recall) == NINE
    assert {number for number, value in enumerate(recall.values()) if value < 1} == wrong
    assert result.scores["splits"]["test"]["top_2_accuracy"] == 1
    assert "most frequent errors: 1 class" in result.summary
