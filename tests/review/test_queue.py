"""Which cases are asked, in which order, and when they are answered."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from leaf.clean.decisions import Rulings
from leaf.review.queue import LabelAssessment, answers, assess_labels, cases, class_probabilities, reach

CLASSES = ("healthy", "unhealthy")
NONE = np.zeros(6, bool)


def decided(**columns: object) -> pd.DataFrame:
    """Six images as clean leaves them, all kept, each in a group of its own."""
    usual = {"label": [0, 1, 0, 1, 0, 1], "kept": 1, "reason": "", "reference": "", "distance": np.nan}
    return pd.DataFrame({"image": range(6), **usual, "group": range(6), **columns})


def indexed(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"image": range(6), "hash": list("abcdef"), "flags": "", **columns})


def paired(*rows: tuple[object, ...]) -> pd.DataFrame:
    columns = ["image", "other", "kind", "mse", "transform", "aligned_mse"]
    return pd.DataFrame(rows, columns=columns).astype({"image": int, "other": int, "mse": float, "aligned_mse": float})


def asked(
    index: pd.DataFrame | None = None,
    decisions: pd.DataFrame | None = None,
    pairs: pd.DataFrame | None = None,
    own: dict[int, float] | None = None,
    unknown: np.ndarray = NONE,
    reached: np.ndarray | None = None,
) -> list[tuple[str, int, int]]:
    """The cases as question, image, other; images in `own` are contradicted, with that probability of their label."""
    doubted = list(own or {})
    probability = np.full(6, np.nan)
    probability[doubted] = list((own or {}).values())
    said = LabelAssessment(probability, np.ones(6, int), np.isin(range(6), doubted))
    table = cases(
        indexed() if index is None else index,
        decided() if decisions is None else decisions,
        paired() if pairs is None else pairs,
        said,
        unknown,
        np.ones(6) if reached is None else reached,
        CLASSES,
    )
    return list(zip(table["question"], table["image"], table["other"], strict=True))


def test_a_clean_set_asks_nothing() -> None:
    assert asked() == []


def test_the_least_probable_label_comes_first() -> None:
    assert asked(own={2: 0.3, 4: 0.1}) == [("label", 4, -1), ("label", 2, -1)]


def test_what_reaches_more_images_comes_before_what_is_likelier() -> None:
    assert asked(own={2: 0.3, 4: 0.1}, reached=np.array([1, 1, 2, 1, 1, 1]))[0] == ("label", 2, -1)


def test_a_picture_that_left_is_not_asked_for_its_label() -> None:
    assert asked(decisions=decided(kept=[1, 1, 0, 1, 1, 1]), own={2: 0.1}) == []


def test_a_picture_is_asked_of_once_for_all_its_copies_and_reasons() -> None:
    index = indexed(hash=list("aacdef"), flags=["dark", "dark", "", "", "", ""])
    unknown = np.isin(range(6), [0])
    assert asked(index, own={0: 0.1, 1: 0.1}, unknown=unknown) == [("label", 0, -1)]


def test_copies_of_different_labels_are_one_case_for_each_group() -> None:
    pairs = paired((0, 1, "near", 9, "", np.nan), (0, 3, "near", 9, "", np.nan), (4, 5, "aligned", 300, "x", 20))
    found = asked(decisions=decided(group=[0, 0, 2, 0, 4, 4]), pairs=pairs)
    assert found == [("conflict", 0, 1), ("conflict", 4, 5)]


def test_of_pairs_that_were_taken_for_one_the_farthest_apart_come_first() -> None:
    near, far = (0, 2, "near", 5, "", np.nan), (1, 3, "near", 90, "", np.nan)
    pairs = paired(near, far, (0, 4, "exact", 0, "", np.nan))
    assert asked(pairs=pairs) == [("copy", 3, 1), ("copy", 2, 0)]


def test_an_outlier_is_asked_once_with_its_reference() -> None:
    out = decided(reason=["outlier"] * 4 + [""] * 2, reference=["0"] * 4 + [""] * 2, kept=[0] * 4 + [1] * 2)
    assert asked(indexed(hash=list("aaabef")), out) == [("outlier", 0, -1), ("outlier", 3, 0)]


NOBODY: dict = {"keep": frozenset(), "drop": frozenset(), "relabel": {}}


@pytest.mark.parametrize(
    ("said", "ruled", "reviewed"),
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
def test_a_case_is_answered_by_a_word_on_it(said: str, ruled: dict, reviewed: list) -> None:
    table = pd.DataFrame({"question": ["copy"], "image": [0], "other": [1]})
    rows = [{"question": q, "hash": one, "other": other, "verdict": "unsure"} for q, one, other in reviewed]
    assert answers(table, list("abc"), Rulings(**{**NOBODY, **ruled}), CLASSES, rows) == [said]


def test_a_word_on_the_reference_answers_no_outlier() -> None:
    table = pd.DataFrame({"question": ["outlier"], "image": [0], "other": [1]})
    assert answers(table, list("ab"), Rulings(**{**NOBODY, "keep": frozenset("b")}), CLASSES, []) == [""]


def test_a_picture_reaches_its_kept_copies_and_its_synthetic_images() -> None:
    synthetic = pd.DataFrame({"parent": [0, 2], "neighbour": [1, np.nan], "weight": [0.25, np.nan]})
    reached = reach(np.array(list("aabc")), np.array([True, True, True, False]), synthetic)
    assert reached.tolist() == [2.75, 2.25, 2, 0]


def test_held_out_labels_of_a_group_come_from_other_groups() -> None:
    """Features that name the image: only its own group could have told its label."""
    labels = np.arange(40) % 2
    features = np.eye(40).repeat(2, axis=0)
    found = class_probabilities(features, labels.repeat(2), np.arange(40).repeat(2))
    assert np.abs(found - 0.5).max() < 0.1


def test_too_few_groups_for_two_folds_give_no_probability() -> None:
    assert np.isnan(class_probabilities(np.eye(4), np.array([0, 0, 0, 1]), np.arange(4))).all()


def test_who_was_not_asked_is_not_doubted() -> None:
    probabilities = np.tile([0.9, 0.1], (40, 1))
    probabilities[20:] = [0.1, 0.9]
    probabilities[39] = np.nan
    labels = np.repeat([0, 1], 20)
    labels[[3, 39]] = [1, 0]
    said = assess_labels(labels, probabilities)
    assert np.flatnonzero(said.contradicted).tolist() == [3]
    assert (said.own[3], np.isnan(said.own[39])) == (0.1, True)


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """benchmarks/review.py as a module, which imports others of its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
        return importlib.import_module("review")


def test_planted_faults_come_before_those_by_confidence_and_by_chance(benchmark: ModuleType) -> None:
    planted = benchmark.plant(240, 32, 1)
    shares = benchmark.shares(planted, *benchmark.in_order(planted), len(planted.images) // 10)
    assert set(shares) == {"all", "label", "copy", "copy, other label", "outlier"}
    assert shares["all"]["queue"] > shares["all"]["confidence"] > shares["all"]["chance"]
    assert shares["copy, other label"]["queue"] == 1
    assert shares["all"]["chance"] == pytest.approx(0.1, abs=0.03)
