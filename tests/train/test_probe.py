"""Test the linear probe: scikit-learn's logistic regression as the head of a network."""

from typing import Any

import numpy as np
import pytest

from leaf.errors import LeafError
from leaf.evaluate.linear_head import linear_head
from leaf.models.build import build_model
from leaf.models.prediction import extract_features, predict_probabilities
from leaf.params import Params, validate
from leaf.train.dataset import Dataset
from leaf.train.linear_probe import fit_probe
from leaf.train.reproducibility import fix_seeds

PROBE = {"optimizer": "lbfgs", "freeze_depth": "all", "dropout": 0, "augmentation": {"flip": "none"}}


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("LEAF_STATE", str(tmp_path))


def data(classes: int, count: int, seed: int, synthetic: int = 0) -> Dataset:
    """Return noise images in which each class has more of one color; synthetic images have class 0."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = random.integers(0, 150, (count, 32, 32, 3)).astype(np.uint8)
    images[np.arange(count), :, :, labels % 3] += 40
    made = images[::classes][:synthetic]
    labels = np.concatenate([labels, np.zeros(synthetic, np.int64)])
    rows = np.arange(count + synthetic)
    return Dataset(images, rows, labels, made, classes, groups=rows)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_network_matches_the_probabilities_of_the_regression(classes: int) -> None:
    fix_seeds(1)
    dataset, validation = data(classes, 60, 0, 4), data(classes, 30, 1)
    model = build_model("cnn_small", 32, classes, dropout=0, freeze_depth="all")
    before = extract_features(model, validation.images)
    recipe = Params(**PROBE)
    result = fit_probe(model, (dataset, validation), recipe)
    features = np.concatenate([extract_features(model, part) for part in (dataset.images, dataset.synthetic)])
    head = linear_head(features, dataset.labels, dataset.groups, seed=recipe.seed)
    probabilities = predict_probabilities(model, validation.images)
    np.testing.assert_allclose(probabilities, head.predict_proba(before), atol=1e-4)
    accuracy = (probabilities.argmax(1) == validation.labels).mean()
    assert accuracy > 0.8
    assert result.history == [result.best]
    assert (result.stopped, result.best["validation_accuracy"]) == ("converged", accuracy)
    assert result.probe == {"strength": head[-1].C, "iterations": head[-1].n_iter_.max()}


@pytest.mark.parametrize(
    "changes", [{"dropout": 0.1}, {"freeze_depth": 3}, {"augmentation": {"flip": "none", "zoom": 0.1}}]
)
def test_settings_that_a_probe_ignores_are_rejected(changes: dict) -> None:
    validate(PROBE)
    with pytest.raises(LeafError, match=r"optimizer: lbfgs.*freeze_depth"):
        validate({**PROBE, **changes})


def test_probe_that_reaches_max_iter_is_not_reported_as_converged(monkeypatch) -> None:
    def stopped_at_max_iter(*arguments: Any, **options: Any) -> Any:
        scaler, regression = linear_head(*arguments, **options)
        regression.max_iter = int(regression.n_iter_.max())
        return scaler, regression

    monkeypatch.setattr("leaf.train.linear_probe.linear_head", stopped_at_max_iter)
    fix_seeds(1)
    dataset, validation = data(2, 60, 0), data(2, 30, 1)
    model = build_model("cnn_small", 32, 2, dropout=0, freeze_depth="all")
    recipe = Params(**PROBE)
    assert fit_probe(model, (dataset, validation), recipe).stopped == "max_iter"
