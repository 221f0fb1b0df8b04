"""Test that cached features equal computed features, and that features in damaged files are recomputed."""

import numpy as np
import pytest

from leaf import store
from leaf.models import feature_cache, prediction
from leaf.models.build import build_model
from leaf.models.feature_cache import NotCachedError, stored_features
from leaf.models.prediction import backbone_key, cached_features, extract_features, frozen_features
from leaf.models.saving import load_model, save_model

ROWS = np.array([3, 0, 7, 3])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LEAF_STATE", str(tmp_path))
    return tmp_path / "features"


@pytest.fixture
def computed(monkeypatch):
    """Return a list to which the batch size of each model call is appended."""
    counts: list[int] = []
    predict = prediction.predict_padded

    def counted(model, images, size):
        counts.append(len(images))
        return predict(model, images, size)

    monkeypatch.setattr(prediction, "predict_padded", counted)
    return counts


def test_cached_features_equal_computed_features(folder, small, images):
    expected = extract_features(small, images[ROWS])
    for _ in range(2):
        np.testing.assert_allclose(cached_features(small, images, ROWS), expected, atol=1e-6)


def test_each_image_is_computed_once_in_any_order_and_dtype(folder, small, images, computed):
    first = cached_features(small, images, ROWS)
    assert computed == [3]  # row 3 is requested twice
    again = cached_features(small, images[::-1].astype(np.float32), np.arange(10))
    assert computed == [3, 7]
    np.testing.assert_array_equal(again[9 - ROWS], first)


def test_stored_features_are_found_without_computing(folder, small, images, computed):
    first = cached_features(small, images, ROWS)
    width = first.shape[1]
    np.testing.assert_array_equal(stored_features(backbone_key(small), width, images, ROWS), first)
    with pytest.raises(NotCachedError):
        stored_features(backbone_key(small), width, images, np.arange(10))
    assert computed == [3]


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"x" + content[1:], lambda _: b""])
def test_damaged_file_is_recomputed(folder, small, images, computed, damage):
    first = cached_features(small, images, ROWS)
    [file] = folder.rglob("*.features")
    file.write_bytes(damage(file.read_bytes()))
    feature_cache._verified.clear()  # as in a new process
    np.testing.assert_array_equal(cached_features(small, images, ROWS), first)
    assert computed == [3, 3]
    assert [each.name for each in folder.rglob("*.features")] == [file.name]


def test_least_recently_used_files_are_deleted_above_the_limit(folder, small, images, computed, monkeypatch):
    cached_features(small, images, np.array([0]))
    cached_features(small, images, np.array([1]))
    cached_features(small, images, np.array([0]))
    monkeypatch.setattr(feature_cache, "LIMIT", 2 * next(folder.rglob("*.features")).stat().st_size)
    cached_features(small, images, np.array([2]))
    cached_features(small, images, np.array([0, 2]))
    assert computed == [1, 1, 1]
    cached_features(small, images, np.array([1]))
    assert computed == [1, 1, 1, 1]


def test_each_file_is_hashed_once_per_process(folder, small, images, monkeypatch):
    cached_features(small, images, ROWS)
    feature_cache._verified.clear()
    cached_features(small, images, ROWS)
    hashed = []
    monkeypatch.setattr(feature_cache.xxhash, "xxh3_128_hexdigest", lambda content: hashed.append(content) or "")
    cached_features(small, images, ROWS)
    assert hashed == []


def test_features_are_computed_if_the_cache_is_not_writable(folder, small, images, computed):
    folder.parent.mkdir(exist_ok=True)
    (folder / backbone_key(small)).parent.mkdir()
    (folder / backbone_key(small)).write_text("a file where a folder belongs")
    np.testing.assert_allclose(cached_features(small, images, ROWS), extract_features(small, images[ROWS]), atol=1e-6)


def test_backbone_key_ignores_the_head(tmp_path):
    model = build_model("mobilenet_v2", 32, seed=1)
    frozen = build_model("mobilenet_v2", 32, classes=5, dropout=0, freeze_depth="all", head_initializer="zeros", seed=1)
    save_model(frozen, tmp_path / "model.keras")
    assert backbone_key(model) == backbone_key(frozen) == backbone_key(load_model(tmp_path / "model.keras"))


def test_backbone_key_depends_on_size_weights_and_precision(small):
    others = [build_model("cnn_small", 48, seed=7), build_model("cnn_small", 32, seed=8)]
    others.append(build_model("cnn_small", 32, seed=7, precision="mixed_bfloat16"))
    changed = build_model("cnn_small", 32, seed=7)
    assert backbone_key(changed) == backbone_key(small)
    weight = next(layer for layer in changed.layers if layer.name.endswith("features")).bias
    weight.assign(weight + 1e-7)
    assert len({backbone_key(model) for model in [small, changed, *others]}) == 5


def test_frozen_features_are_those_of_the_weights_file(folder, images, tmp_path):
    model = build_model("cnn_small", 32, seed=5)
    save_model(model, tmp_path / "weights.keras")
    sha256 = store.sha256(tmp_path / "weights.keras")
    found = frozen_features(images, ROWS, "cnn_small", str(tmp_path / "weights.keras"), sha256)
    np.testing.assert_allclose(found, extract_features(model, images[ROWS]), atol=1e-6)
