"""Epochs with a frozen backbone use cached features unless the images change."""

from typing import Any

import keras
import numpy as np
import pytest

from leaf.models.build import build_model
from leaf.models.freezing import backbone_operations, freeze_backbone
from leaf.params import Params
from leaf.train import trainer
from leaf.train.checkpoint import CheckpointFile
from leaf.train.dataset import Dataset
from leaf.train.reproducibility import fix_seeds
from leaf.train.trainer import ClassifierTraining, run_training

pytestmark = pytest.mark.slow
FROZEN = {"epochs": 3, "frozen_epochs": 2, "freeze_depth": 3, "batch_size": 16, "augmentation": {"flip": "none"}}
CACHED = "its features are computed once and cached"


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("LEAF_STATE", str(tmp_path))


def data(count: int, seed: int) -> Dataset:
    """Return noise images in which each class has more of one color, and four synthetic images."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 150, (count, 32, 32, 3)).astype(np.uint8)
    labels = np.arange(count) % 2
    images[np.arange(count), :, :, labels] += 40
    rows = np.arange(count + 4)
    return Dataset(images, rows, np.concatenate([labels, labels[:4]]), images[:4] + np.float32(0.5))


def fit(inner_dropout: float = 0, **more: Any) -> tuple[Any, list[dict[str, Any]]]:
    options = {key: more.pop(key) for key in ("checkpoint_file", "on_epoch_end") if key in more}
    fix_seeds(1)
    model = build_model("cnn_small", 32, dropout=0.2)
    for layer in backbone_operations(model):
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = inner_dropout
    recipe = Params(**{**FROZEN, **more})

    def freeze(depth: int | str) -> None:
        freeze_backbone(model, depth)

    training = ClassifierTraining(model, data(48, 0), data(24, 1), recipe, freeze)
    result = run_training(training, quiet=True, **options)
    return model, result.history


def test_cached_epochs_equal_computed_ones(capsys, monkeypatch) -> None:
    model, history = fit(weight_averaging=0.5, micro_batch=8)
    assert capsys.readouterr().err.count(CACHED) == 1
    monkeypatch.setattr(trainer, "head_on_features", lambda model: None)
    full, other = fit(weight_averaging=0.5, micro_batch=8)
    for row, there in zip(history, other, strict=True):
        assert row == pytest.approx(there, abs=1e-3)
    assert [row["phase"] for row in history] == [1, 1, 2]
    for weight, there in zip(model.get_weights(), full.get_weights(), strict=True):
        np.testing.assert_allclose(weight, there, atol=1e-3)


def test_a_resume_in_a_cached_epoch_is_bit_identical(tmp_path) -> None:
    def interrupt(row: dict[str, Any]) -> None:
        if row["epoch"] == 1:
            raise KeyboardInterrupt

    whole, history = fit(frozen_epochs=3)
    file = CheckpointFile(tmp_path / "checkpoint.npz")
    with pytest.raises(KeyboardInterrupt):
        fit(frozen_epochs=3, checkpoint_file=file, on_epoch_end=interrupt)
    again, resumed = fit(frozen_epochs=3, checkpoint_file=file)
    assert resumed == history
    assert all((a == b).all() for a, b in zip(whole.get_weights(), again.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"augmentation": {"flip": "both"}}, "augmented"),
        ({"inner_dropout": 0.1}, "it has random layers"),
    ],
)
def test_augmentation_and_inner_dropout_disable_the_cache_with_a_message(capsys, changes, why) -> None:
    fit(**changes, epochs=1)
    stderr = capsys.readouterr().err
    assert why in stderr
    assert CACHED not in stderr


def test_a_permanently_frozen_backbone_uses_the_cache(capsys) -> None:
    _, history = fit(frozen_epochs=0, freeze_depth="all", epochs=1)
    assert capsys.readouterr().err.count(CACHED) == 1
    assert [row["phase"] for row in history] == [2]
