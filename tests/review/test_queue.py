"""Test the cases on the review page, their order, and the decisions on them."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from leaf.clean.decisions import Overrides
from leaf.review.queue import LabelAssessment, answers, assess_labels, cases, class_probabilities, reach

CLASSES = ("healthy", "unhealthy")
NONE = np.zeros(6, bool)


def decided(**columns: object) -> pd.DataFrame:
    """Return a decisions table for six images, by default all kept and each in its own group."""
    usual = {"label": [0, 1, 0, 1, 0, 1], "kept": 1, "reason": "", "reference": "", "distance": np.nan}
    return pd.DataFrame({"image": range(6), **usual, "group": range(6), **columns})


def indexed(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"image": range(6), "hash": list("abcdef"), "flags": "", **columns})


def paired(*rows: tuple[object, ...]) -> pd.DataFrame:
    columns = ["image", "other", "kind", "mse", "transform", "aligned_mse"]
    return pd.DataFrame(rows, columns=columns).astype({"image": int, "other": int, "mse": float, "aligned_mse": float})


def found_cases(
    index: pd.DataFrame | None = None,
    decisions: pd.DataFrame | None = None,
    pairs: pd.DataFrame | None = None,
    own: dict[int, float] | None = None,
    unknown: np.ndarray = NONE,
    reached: np.ndarray | None = None,
) -> list[tuple[str, int, int]]:
    """Return the cases as (question, image, other); `own` maps an image to the probability of its label."""
    doubted = list(own or {})
    probability = np.full(6, np.nan)
    probability[doubted] = list((own or {}).values())
    decisions = decided() if decisions is None else decisions
    wrong = np.isin(range(6), doubted)
    assessed = LabelAssessment(probability, np.where(wrong, 1 - decisions["label"], decisions["label"]), wrong)
    table = cases(
        indexed() if index is None else index,
        decisions,
        paired() if pairs is None else pairs,
        assessed,
        unknown,
        np.ones(6) if reached is None else reached,
        CLASSES,
    )
    return list(zip(table["question"], table["image"], table["other"], strict=True))


def test_clean_set_has_no_cases() -> None:
    assert found_cases() == []


def test_least_probable_label_comes_first() -> None:
    assert found_cases(own={2: 0.3, 4: 0.1}) == [("label", 4, -1), ("label", 2, -1)]


def test_decision_that_affects_more_images_comes_first() -> None:
    assert found_cases(own={2: 0.3, 4: 0.1}, reached=np.array([1, 1, 2, 1, 1, 1]))[0] == ("label", 2, -1)


def test_label_of_a_removed_image_is_not_a_case() -> None:
    assert found_cases(decisions=decided(kept=[1, 1, 0, 1, 1, 1]), own={2: 0.1}) == []


def test_copies_and_reasons_of_an_image_are_one_case() -> None:
    index = indexed(hash=list("aacdef"), flags=["dark", "dark", "", "", "", ""])
    unknown = np.isin(range(6), [0])
    assert found_cases(index, own={0: 0.1, 1: 0.1}, unknown=unknown) == [("label", 0, -1)]


def test_group_with_different_labels_is_one_case() -> None:
    pairs = paired((0, 1, "near", 9, "", np.nan), (0, 3, "near", 9, "", np.nan), (4, 5, "aligned", 300, "x", 20))
    found = found_cases(decisions=decided(group=[0, 0, 2, 0, 4, 4]), pairs=pairs)
    assert found == [("conflict", 0, 1), ("conflict", 4, 5)]


def test_pairs_with_the_largest_distance_come_first() -> None:
    near, far = (0, 2, "near", 5, "", np.nan), (1, 3, "near", 90, "", np.nan)
    pairs = paired(near, far, (0, 4, "exact", 0, "", np.nan))
    assert found_cases(pairs=pairs) == [("copy", 3, 1), ("copy", 2, 0)]


def test_outlier_is_one_case_with_its_reference() -> None:
    out = decided(reason=["outlier"] * 4 + [""] * 2, reference=["0"] * 4 + [""] * 2, kept=[0] * 4 + [1] * 2)
    assert found_cases(indexed(hash=list("aaabef")), out) == [("outlier", 0, -1), ("outlier", 3, 0)]


NONE_DECIDED: dict = {"keep": frozenset(), "drop": frozenset(), "relabel": {}}


@pytest.mark.parametrize(
    ("expected", "overrides", "reviewed"),
    [
        ("drop", {"drop": frozenset("a")}, []),
        ("relabel unhealthy", {"relabel": {"a": 1}}, []),
        ("keep", {"keep": frozenset("b")}, []),
        ("apart", {"apart": frozenset({("a", "b")})}, []),
        ("unsure", {}, [("copy", "a", "b")]),
        ("", {}, [("label", "a", "")]),
        ("", {"group": frozenset({("a", "c")})}, []),
    ],
)
def test_decision_on_an_image_applies_to_its_cases(expected: str, overrides: dict, reviewed: list) -> None:
    table = pd.DataFrame({"question": ["copy"], "image": [0], "other": [1]})
    rows = [{"question": q, "hash": one, "other": other, "verdict": "unsure"} for q, one, other in reviewed]
    assert answers(table, list("abc"), Overrides(**{**NONE_DECIDED, **overrides}), CLASSES, rows) == [expected]


def test_decision_on_the_reference_does_not_apply_to_an_outlier() -> None:
    table = pd.DataFrame({"question": ["outlier"], "image": [0], "other": [1]})
    assert answers(table, list("ab"), Overrides(**{**NONE_DECIDED, "keep": frozenset("b")}), CLASSES, []) == [""]


def test_reach_counts_kept_copies_and_synthetic_images() -> None:
    synthetic = pd.DataFrame({"parent": [0, 2], "neighbour": [1, 2], "weight": [0.25, 0.0]})
    reached = reach(np.array(list("aabc")), np.array([True, True, True, False]), synthetic)
    assert reached.tolist() == [2.75, 2.25, 2, 0]


def test_probabilities_of_a_group_come_from_other_groups() -> None:
    """The features identify the group, so leakage between folds would make every label predictable."""
    labels = np.arange(40) % 2
    features = np.eye(40).repeat(2, axis=0)
    found = class_probabilities(features, labels.repeat(2), np.arange(40).repeat(2))
    assert np.abs(found - 0.5).max() < 0.1


def test_too_few_groups_for_two_folds_return_nan() -> None:
    assert np.isnan(class_probabilities(np.eye(4), np.array([0, 0, 0, 1]), np.arange(4))).all()


def test_images_without_a_prediction_are_not_label_errors() -> None:
    probabilities = np.tile([0.9, 0.1], (40, 1))
    probabilities[20:] = [0.1, 0.9]
    probabilities[39] = np.nan
    labels = np.repeat([0, 1], 20)
    labels[[3, 39]] = [1, 0]
    assessed = assess_labels(labels, probabilities)
    assert np.flatnonzero(assessed.contradicted).tolist() == [3]
    assert (assessed.own[3], np.isnan(assessed.own[39])) == (0.1, True)


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """Import benchmarks/review.py, which imports modules from its own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
        return importlib.import_module("review")


def test_planted_errors_are_found_earlier_than_by_confidence_or_chance(benchmark: ModuleType) -> None:
    planted = benchmark.plant(240, 32, 1)
    shares = benchmark.shares(planted, *benchmark.in_order(planted), len(planted.images) // 10)
    assert set(shares) == {"all", "wrong label", "copy, same label", "copy, different label", "outlier"}
    assert shares["all"]["queue"] > shares["all"]["confidence"] > shares["all"]["random"]
    assert shares["copy, different label"]["queue"] == 1
    assert shares["all"]["random"] == pytest.approx(0.1, abs=0.03)


def test_most_probable_label_below_one_half_is_not_a_case() -> None:
    assessed = LabelAssessment(np.full(6, 0.4), decided()["label"].to_numpy(), NONE)
    assert cases(indexed(), decided(), paired(), assessed, NONE, np.ones(6), CLASSES).empty
