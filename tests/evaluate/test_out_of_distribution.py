"""Test the detection of out-of-distribution images."""

import numpy as np
import pytest

from leaf.errors import LeafError
from leaf.evaluate import out_of_distribution as ood
from leaf.evaluate.out_of_distribution import STATISTICS, image_statistics
from leaf.synthesize import draw_cartoon, draw_leaf

SIZE = 32


def leaves(count, seed):
    rng = np.random.default_rng(seed)
    return np.stack([draw_leaf(rng, SIZE, bool(number % 2)) for number in range(count)])


def features_of(images, seed=0):
    """Return features of a simulated network: normal noise around one center for all images."""
    return np.random.default_rng(seed).normal(3, 1, (len(images), 8)).astype(np.float32)


@pytest.fixture(scope="module")
def detector():
    train, validation = leaves(150, 1), leaves(60, 2)
    return ood.fit(features_of(train, 1), train, features_of(validation, 2), validation, draw_cartoon(0, SIZE)[None])


def known(detector, images, features=None):
    return detector.in_distribution(features_of(images, 9) if features is None else features, images)


def test_most_new_leaves_are_in_distribution(detector):
    assert known(detector, leaves(60, 3)).mean() >= 0.9


def test_few_validation_images_are_rejected(detector):
    assert known(detector, leaves(60, 2), features_of(range(60), 2)).mean() >= 1 - sum(ood.REJECTED.values()) - 1 / 30


@pytest.mark.parametrize(
    "image",
    [
        np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8),
        np.full((SIZE, SIZE, 3), 90, np.uint8),
        np.indices((SIZE, SIZE)).sum(0)[..., None].repeat(3, 2).astype(np.uint8) // 8 % 2 * 255,
    ],
    ids=["noise", "plain", "stripes"],
)
def test_unusual_pixels_are_out_of_distribution(detector, image):
    assert not known(detector, image[None])[0]


def test_unusual_features_are_out_of_distribution(detector):
    features = np.array([[3] * 8, [9] * 8], np.float32)
    images = leaves(1, 1).repeat(2, axis=0)
    assert list(known(detector, images, features)) == [True, False]


def test_a_copy_of_an_outlier_is_out_of_distribution_without_other_evidence():
    train = np.concatenate([leaves(60, 1), draw_cartoon(0, SIZE)[None].repeat(20, axis=0)])
    reference = draw_cartoon(0, SIZE)[None]
    fitted = [
        ood.fit(features_of(train), train, features_of(train), train, kept) for kept in (reference[:0], reference)
    ]
    noisy = np.clip(reference + np.random.default_rng(0).normal(0, 8, reference.shape), 0, 255)
    copy = np.concatenate([reference, noisy.astype(np.uint8)])
    features = np.full((2, 8), 3, np.float32)
    assert [list(detector.references.shape) for detector in fitted] == [[0, 16, 16, 3], [1, 16, 16, 3]]
    assert known(fitted[0], copy, features)[0]
    assert not known(fitted[1], copy, features).any()


def test_image_statistics_do_not_change_with_the_batch():
    images = leaves(5, 4)
    assert np.array_equal(image_statistics(images)[3:4], image_statistics(images[3:4]))
    assert image_statistics(images[:0]).shape == (0, STATISTICS)


def test_a_distance_does_not_change_with_the_batch():
    rng = np.random.default_rng(0)
    gaussian = ood.Gaussian(rng.random(320, np.float32), rng.random((320, 320), np.float32), 1)
    vectors = rng.random((64, 320), np.float32)
    together = gaussian.distance(vectors)
    assert together.tolist() == [gaussian.distance(vector[None])[0] for vector in vectors]


def test_image_statistics_of_extremes_are_finite():
    images = np.stack([np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)])
    assert np.isfinite(image_statistics(images)).all()


def test_a_written_detector_reads_back_equal(detector, tmp_path):
    ood.write(detector, "a" * 64, tmp_path / "ood.npz")
    statistics = image_statistics(leaves(20, 5))
    again = ood.read(tmp_path / "ood.npz", "a" * 64)
    assert np.array_equal(again.statistics.distance(statistics), detector.statistics.distance(statistics))
    assert np.array_equal(again.references, detector.references)


def test_equal_detectors_write_identical_files(detector, tmp_path, monkeypatch):
    ood.write(detector, "a" * 64, tmp_path / "one.npz")
    monkeypatch.setattr("time.time", lambda: 2e9)
    ood.write(detector, "a" * 64, tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_the_detector_of_another_model_is_rejected(detector, tmp_path):
    ood.write(detector, "a" * 64, tmp_path / "ood.npz")
    with pytest.raises(LeafError, match=r"ood\.npz: .* run\.json"):
        ood.read(tmp_path / "ood.npz", "b" * 64)


def test_a_damaged_detector_is_rejected_in_one_line(detector, tmp_path):
    path = tmp_path / "ood.npz"
    ood.write(detector, "a" * 64, path)
    whole = path.read_bytes()
    for damaged in (b"", b"nonsense", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(LeafError, match=r"ood\.npz: damaged"):
            ood.read(path, "a" * 64)


def test_too_few_images_are_rejected():
    images = leaves(2, 1)
    with pytest.raises(LeafError, match=r"splits\.csv: at least two training images"):
        ood.fit(features_of(images), images, features_of(images[:0]), images[:0], images[:0])
