"""Test that `freeze_depth` counts operations and that frozen BatchNormalization layers keep their statistics."""

import keras
import numpy as np
import pytest

from leaf.errors import LeafError
from leaf.models.backbones import BACKBONES
from leaf.models.build import build_model
from leaf.models.freezing import backbone_operations, freeze_backbone
from leaf.models.saving import load_model, save_model
from leaf.models.summary import summarize_model


def _learning(model):
    return [getattr(operation, "trainable", None) for operation in backbone_operations(model)]


def test_first_operations_are_frozen(small):
    model = build_model("cnn_small", 32, freeze_depth=4)
    assert _learning(model) == [False] * 4 + [True] * (len(_learning(model)) - 4)


def test_head_stays_trainable():
    model = build_model("cnn_small", 32, freeze_depth="all")
    assert {weight.path.split("/")[0] for weight in model.trainable_weights} == {"batch_normalization", "dense"}


def test_smaller_depth_unfreezes_later_operations():
    model = build_model("cnn_small", 32, freeze_depth="all")
    freeze_backbone(model, 0)
    assert all(_learning(model))


def test_depth_beyond_the_backbone_is_rejected():
    with pytest.raises(LeafError, match="freeze_depth: 15; valid: 0 to 14 for cnn_small, or all"):
        build_model("cnn_small", 32, freeze_depth=15)


LARGE = tuple(f"convnext{size}" for size in ("_small", "_base", "_large", "_xlarge", "v2_base", "v2_large", "v2_huge"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.full if name in LARGE else ())
        for name, each in BACKBONES.items()
        if not each.detector
    ],
)
def test_every_backbone_has_the_listed_number_of_operations(name):
    table = summarize_model(build_model(name, max(BACKBONES[name].minimum, 32)))
    assert table.operations == BACKBONES[name].operations
    assert sum(row.parameters for row in table.rows) == table.total


def test_frozen_batch_normalization_keeps_its_statistics():
    model = build_model("cnn_medium", 16, freeze_depth="all")
    layer = model.get_layer("stage_0_conv_0_norm")
    before = np.asarray(layer.moving_mean)
    model(np.full((4, 16, 16, 3), 200, np.float32), training=True)
    assert np.array_equal(before, np.asarray(layer.moving_mean))
    freeze_backbone(model, 0)
    model(np.full((4, 16, 16, 3), 200, np.float32), training=True)
    assert not np.array_equal(before, np.asarray(layer.moving_mean))


def test_normalization_stays_frozen_at_any_depth():
    model = build_model("cnn_medium", 16, freeze_normalization=True)
    for _ in range(2):
        learning = {weight.path for weight in model.trainable_weights}
        assert [path for path in learning if "norm" in path and not path.startswith("batch_normalization")] == []
        assert {"stage_0_conv_0/kernel", "batch_normalization/gamma"} <= learning
        freeze_backbone(model, "all", normalization=True)
        freeze_backbone(model, 0, normalization=True)


def test_loaded_model_has_the_same_backbone_operations(small, tmp_path):
    save_model(small, tmp_path / "a.keras")
    loaded = backbone_operations(load_model(tmp_path / "a.keras"))
    assert [operation.name for operation in loaded] == [operation.name for operation in backbone_operations(small)]


@pytest.mark.slow
def test_preprocessing_layers_are_not_counted():
    stock = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    assert len(backbone_operations(build_model("mobilenet", 32))) == len(stock.operations)


@pytest.mark.slow
def test_convnext_large_with_90_frozen_operations_has_the_parameters_of_the_report():
    table = summarize_model(build_model("convnext_large", 96, freeze_depth=90))
    parts = {row.name: row.parameters for row in table.rows}
    assert parts == {"dropout": 0, "convnext_large": 196_230_336, "batch_normalization": 6_144, "dense": 3_074}
    assert (table.total, table.trainable, table.non_trainable) == (196_239_554, 166_411_010, 29_828_544)
    assert table.operations == BACKBONES["convnext_large"].operations == 296
