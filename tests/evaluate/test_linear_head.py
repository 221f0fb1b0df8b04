"""Test logistic regression with grouped selection of the regularization strength."""

import numpy as np

from leaf.evaluate.linear_head import STRENGTHS, linear_head


def noisy(images: int, copies: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weakly predictive features (images · copies, 40), labels, and groups of near duplicates."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(images) % 3, copies)
    features = np.repeat(random.normal(0, 1, (images, 40)), copies, axis=0)
    features += random.normal(0, 0.01, features.shape) + 0.6 * (np.arange(40) == labels[:, None])
    return features, labels, np.repeat(np.arange(images), copies)


def test_grouped_inner_folds_select_stronger_regularization_than_random_folds():
    features, labels, groups = noisy(60, 4)
    grouped = linear_head(features, labels, groups)[-1]
    random = linear_head(features, labels, np.arange(len(labels)))[-1]
    assert grouped.C in STRENGTHS
    assert grouped.C < random.C  # copies in different folds favor weak regularization


def test_gradient_vanishes_at_the_solution():
    features, labels, groups = noisy(60, 1)
    scaler, head = linear_head(features, labels, groups)
    errors = head.predict_proba(scaler.transform(features)) - np.eye(3)[labels]
    gradient = errors.T @ scaler.transform(features) + head.coef_ / head.C
    assert np.abs(gradient).max() < 1e-3 * len(labels)


def test_strength_is_1_if_a_class_has_one_group():
    features, labels, groups = noisy(30, 2)
    groups[labels == 2] = 99
    assert linear_head(features, labels, groups)[-1].C == 1


def test_balanced_weights_raise_the_probability_of_a_rare_class():
    features, labels, _ = noisy(60, 1)
    rare = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:5]])
    [predicted, balanced] = [
        linear_head(features[rare], labels[rare], balanced=each).predict_proba(features[labels == 1])[:, 1].mean()
        for each in (False, True)
    ]
    assert balanced > predicted + 0.05
