"""The audit finds a site with inverted labels, and detects images of a new class only if it is far from the others."""

from types import SimpleNamespace

import numpy as np
import pytest

from leaf.audit.domain_shift import cluster_backgrounds, compare_accuracy, new_classes, score_detectors, transport

COUNT = 180
LABELS = np.arange(COUNT) % 2
GROUPS = np.arange(COUNT) // 2 + 1000 * LABELS
SITES = np.repeat(["north", "south", "east"], COUNT // 3)


def features(inverted=()):
    """Return features (N, 6) that encode the site and the label, inverted at the sites in `inverted`."""
    random = np.random.default_rng(0)
    found = random.normal(size=(COUNT, 6))
    found[:, 0] = (2 * LABELS - 1) * np.where(np.isin(SITES, inverted), -1, 1) * 2 + 0.5 * random.normal(size=COUNT)
    for place, site in enumerate(("north", "south", "east")):
        found[site == SITES, 1 + place] += 6
    found[:, 4] = found[:, 0] * np.where(SITES == "east", 3, 0)
    return found


def test_accuracy_drops_on_a_site_with_inverted_labels():
    found = transport(features(["east"]), LABELS, GROUPS, SITES)
    east = found["east"]
    assert east.images == 60
    assert east.inside.low > 0.8
    assert east.outside.high < 0.2
    assert east.drop.low > 0.5
    assert east.drop.accuracy == pytest.approx(east.inside.accuracy - east.outside.accuracy)


def test_accuracy_does_not_drop_on_similar_sites():
    for one in transport(features(), LABELS, GROUPS, SITES).values():
        assert one.drop.low <= 0.02
        assert one.outside.accuracy > 0.9


def test_classes_without_images_elsewhere_are_not_tested():
    labels = np.where(SITES == "east", LABELS + 2, LABELS)
    assert transport(features(), labels, GROUPS, SITES).keys() == {"north", "south"}


def test_group_at_two_sites_is_excluded_from_training_if_one_site_is_left_out(monkeypatch):
    trained = []

    def learner(train, labels):
        trained.append(train[:, 0])
        return SimpleNamespace(predict_proba=lambda queries: np.tile([0.6, 0.4], (len(queries), 1)))

    monkeypatch.setitem(transport.__globals__["LEARNERS"], "held", learner)
    numbered = np.arange(COUNT, dtype=float)[:, None] + np.zeros((1, 2))
    together = GROUPS.copy()
    together[[0, 70]] = 7
    transport(numbered, LABELS, together, SITES)
    north = next(rows for rows in trained if rows.min() >= 60)
    assert 70.0 not in north
    assert 71.0 in north


def test_only_a_class_far_from_the_others_is_detected():
    random = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2, 3], 60)
    centres = np.array([[0, 0], [6, 0], [3, 0], [3, 40]])
    points = np.concatenate([centres[labels] + random.normal(size=(240, 2)), random.normal(size=(240, 3))], axis=1)
    found = new_classes(points, labels, np.arange(240), ["left", "right", "amid", "far"])
    assert found["far"]["mahalanobis"].caught.low > 0.9
    assert found["far"]["mahalanobis"].auroc.low > 0.95
    assert found["amid"]["mahalanobis"].auroc.high < 0.6
    assert found["far"]["neighbours"].auroc.low > 0.9


def test_two_backgrounds_are_separated():
    random = np.random.default_rng(2)
    frames = random.normal(size=(90, 8)) + 20 * (np.arange(90) % 3 == 0)[:, None]
    guessed = cluster_backgrounds(frames)
    assert {name for name, other in zip(guessed, np.arange(90) % 3, strict=True) if other == 0} == {"background 2"}
    assert guessed.count("background 1") == 60


def test_each_of_two_classes_is_unknown_to_the_other():
    labels = np.repeat([0, 1], 60)
    points = np.random.default_rng(3).normal(size=(120, 4)) + 30 * labels[:, None]
    found = new_classes(points, labels, np.arange(120), ["healthy", "unhealthy"])
    assert found.keys() == {"healthy", "unhealthy"}
    assert all(flags["mahalanobis"].caught.low > 0.9 for flags in found.values())


def test_an_unknown_image_is_scored_only_by_folds_without_its_group():
    random = np.random.default_rng(5)
    of_leaf = random.normal(size=(60, 8)).repeat(3, axis=0) * 10  # three similar images of each leaf
    features = of_leaf + random.normal(size=of_leaf.shape)
    groups = np.arange(60).repeat(3)
    alone = score_detectors(features, np.arange(180) % 2, groups, of_leaf, groups)["neighbours"]
    leaked = score_detectors(features, np.arange(180) % 2, groups, of_leaf, np.full(180, -1))["neighbours"]
    assert alone.auroc.accuracy > 0.45
    assert leaked.auroc.accuracy < 0.4  # other images of the same leaf were in training


def test_training_images_do_not_count_as_tested():
    inside, outside = np.array([1, np.nan, 1, 0]), np.array([0, 0, 1, 0])
    found = compare_accuracy(inside, outside, np.array([0, 0, 0, 1]), np.arange(4))
    assert found.inside.accuracy == pytest.approx(2 / 3)
    assert found.outside.accuracy == 0.25
    assert found.drop.accuracy == pytest.approx(1 / 3)


def test_majority_and_balanced_accuracy_use_only_tested_images():
    found = compare_accuracy(np.array([1, 1, 1, 0]), np.array([1, 0, 0, 0]), np.array([0, 0, 0, 1]), np.arange(4))
    assert (found.majority, found.balanced_inside) == (0.75, 0.5)
    assert found.balanced_outside == pytest.approx(1 / 6)
