"""Test the settings of every backbone: `freeze_depth`, pretrained weights and parameter counts."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from leaf.errors import LeafError
from leaf.models.backbones import BACKBONES, KERAS_VARIANTS, VARIANTS, check, recommended_runs, recommended_size
from leaf.models.weights import checkpoint_name, describe_download

PARITY = json.loads((Path(__file__).parents[2] / "benchmarks/tables.json").read_text(encoding="utf-8"))["timm_parity"]
CLASSIFIERS = [name for name, each in BACKBONES.items() if not each.detector]


def settings(name, **changes):
    defaults = {"weights": "random", "freeze_normalization": False, "head_initializer": "glorot_uniform"}
    defaults |= {"dropout_at": "head", "freeze_depth": 0, "image_size": max(BACKBONES[name].minimum, 32)}
    return SimpleNamespace(backbone=name, **(defaults | changes))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_freeze_depth_is_limited_to_the_operations_of_the_backbone(name):
    operations = BACKBONES[name].operations
    check(settings(name, freeze_depth=operations), 2)
    check(settings(name, freeze_depth="all"), 2)
    with pytest.raises(LeafError, match=rf"^freeze_depth: {operations + 1}; valid: 0 to {operations} for {name}\b"):
        check(settings(name, freeze_depth=operations + 1), 2)


@pytest.mark.parametrize("name", VARIANTS)
def test_imagenet_weights_of_every_timm_variant_are_its_recommended_checkpoint(name):
    check(settings(name, weights="imagenet"), 2)
    checkpoint = checkpoint_name(name, "imagenet")
    assert checkpoint.startswith(f"timm/{name.removesuffix('_patch')}.")
    assert f"https://huggingface.co/{checkpoint}" in describe_download(name, "imagenet", 96)


@pytest.mark.parametrize("name", KERAS_VARIANTS)
def test_larger_convnexts_accept_weights_of_keras_and_of_timm(name):
    for weights in ("imagenet", f"timm/{name}.fb_in22k"):
        check(settings(name, weights=weights), 2)
    assert f"{BACKBONES[name].megabytes} MB" in describe_download(name, "imagenet", 96)


@pytest.mark.parametrize("name", ["convnext_atto", "mobilenet_v2", "cnn_small"])
def test_timm_checkpoints_are_rejected_for_other_backbones(name):
    with pytest.raises(LeafError, match=rf"^weights: timm weights are not supported for {name}; valid backbones: "):
        check(settings(name, weights="timm/convnext_nano.in12k"), 2)


@pytest.mark.parametrize("row", PARITY["rows"], ids=lambda row: row[0].strip("`"))
def test_parameter_counts_match_the_comparison_with_timm(row):
    name = row[0].strip("`")
    variant = (VARIANTS | KERAS_VARIANTS)[name]
    head = 4 * variant.dims[-1] + 2 * (variant.dims[-1] + 1)  # BatchNormalization and two logits
    assert (f"{variant.parameters + head:,}", str(BACKBONES[name].operations)) == (row[1], row[2])


@pytest.mark.parametrize(
    ("images", "gpu", "experiments"),
    [
        (200, True, ["probe", "transfer"]),
        (20_000, False, ["probe", "transfer"]),
        (2_000, True, ["probe_convnext", "transfer_convnext"]),
    ],
)
def test_recommended_experiments_depend_on_images_and_device(images, gpu, experiments):
    assert recommended_runs(images, gpu) == [f"leaf run {name}" for name in experiments]


def test_convnext_tiny_is_recommended_for_20000_images_on_a_gpu():
    assert "backbone=convnext_tiny" in recommended_runs(20_000, True)[-1]


@pytest.mark.parametrize(
    ("side", "image_size", "size"), [(96, 96, None), (140, 96, 128), (256, 96, 160), (256, 160, None)]
)
def test_recommended_size_is_the_largest_that_the_originals_support(side, image_size, size):
    assert recommended_size(side, image_size) == size
