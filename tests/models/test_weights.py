"""Test loading weights from downloads and from files with a pinned SHA-256. Each failure raises a one-line error."""

import io
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import h5py
import keras
import numpy as np
import pytest

from leaf import store
from leaf.errors import LeafError
from leaf.models.build import _NETWORKS, build_model
from leaf.models.prediction import extract_features, predict_probabilities
from leaf.models.saving import save_model

MOBILENET = "mobilenet_v2_imagenet_no_top.h5"


@pytest.fixture
def serve(monkeypatch, tmp_path):
    """Replace the weights server of keras.applications and return a function that sets its response."""
    answer = {"status": 404, "body": b""}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(answer["status"])
            self.send_header("Content-Length", str(len(answer["body"])))
            self.end_headers()
            self.wfile.write(answer["body"])

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    origin = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr("keras.src.applications.mobilenet_v2.BASE_WEIGHT_PATH", origin)
    monkeypatch.setattr("keras.src.applications.efficientnet_v2.BASE_WEIGHTS_PATH", origin)
    (tmp_path / "home").mkdir()  # if it does not exist, Keras uses /tmp/.keras
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path / "home"))
    yield lambda status, body: answer.update(status=status, body=body)
    server.shutdown()
    server.server_close()


def test_error_for_a_changed_file_names_its_sha256(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"abc")
    right = store.sha256(tmp_path / "a.h5")
    with pytest.raises(LeafError, match=rf"weights_sha256: .*a\.h5.*{right}"):
        build_model("cnn_small", 32, weights=str(tmp_path / "a.h5"))


def test_file_without_weights_is_rejected_in_one_line(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"abc")
    with pytest.raises(LeafError, match="cnn_small") as caught:
        build_model("cnn_small", 32, weights=str(tmp_path / "a.h5"), weights_sha256=store.sha256(tmp_path / "a.h5"))
    assert "\n" not in str(caught.value)


def test_missing_file_is_named():
    with pytest.raises(LeafError, match=r"weights: none.h5: no such file"):
        build_model("cnn_small", 32, weights="none.h5")


def test_weights_of_another_backbone_are_rejected(small, tmp_path):
    save_model(small, tmp_path / "a.keras")
    with pytest.raises(LeafError, match=r"cnn_small.*cnn_medium"):
        build_model(
            "cnn_medium", 32, weights=str(tmp_path / "a.keras"), weights_sha256=store.sha256(tmp_path / "a.keras")
        )


def test_weights_of_a_trained_model_exclude_its_head(small, images, tmp_path):
    save_model(small, tmp_path / "a.keras")
    file, sha256 = str(tmp_path / "a.keras"), store.sha256(tmp_path / "a.keras")
    model = build_model("cnn_small", 32, weights=file, weights_sha256=sha256, seed=99)
    np.testing.assert_allclose(extract_features(model, images), extract_features(small, images), atol=1e-6)
    assert not np.allclose(model.get_layer("dense").get_weights()[0], small.get_layer("dense").get_weights()[0])


def test_imagenet_weights_are_rejected_for_the_default_network():
    with pytest.raises(LeafError, match=r"weights: imagenet: .*cnn_small"):
        build_model("cnn_small", 32, weights="imagenet")


@pytest.mark.slow
def test_failed_download_is_rejected_in_one_line(serve):
    serve(404, b"")
    with pytest.raises(LeafError, match=r"the download for mobilenet_v2 failed .*404") as caught:
        build_model("mobilenet_v2", 32, weights="imagenet")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_corrupt_download_is_rejected_in_one_line(serve):
    serve(200, b"not what was published")
    with pytest.raises(LeafError, match=r"efficientnet_v2_b0.*corrupted"):
        build_model("efficientnet_v2_b0", 32, weights="imagenet")


@pytest.mark.slow
@pytest.mark.realdata
def test_downloaded_weights_are_used(serve, shared):
    body = (shared / MOBILENET).read_bytes()
    serve(200, body)
    downloaded = build_model("mobilenet_v2", 224, weights="imagenet")
    given = build_model(
        "mobilenet_v2", 224, weights=str(shared / MOBILENET), weights_sha256=store.sha256(shared / MOBILENET)
    )
    assert all(np.array_equal(a, b) for a, b in zip(downloaded.get_weights(), given.get_weights(), strict=True))


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("size", [96, 224])
def test_published_weights_of_mobilenet_v2_load(shared, size):
    path = shared / MOBILENET
    model = build_model("mobilenet_v2", size, weights=str(path), weights_sha256=store.sha256(path))
    stock = keras.applications.MobileNetV2(
        include_top=False, weights=str(path), input_shape=(size, size, 3), pooling="avg"
    )
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    expected = np.asarray(stock(keras.applications.mobilenet_v2.preprocess_input(images.astype(np.float32))))
    np.testing.assert_allclose(extract_features(model, images), expected, atol=1e-4)
    assert predict_probabilities(model, images).shape == (2, 2)


def _changed(data, kind):
    if kind == "cut":
        return data[: len(data) // 2]
    if kind == "zeros":
        return data[:512] + bytes(len(data) - 512)
    stream = io.BytesIO(data)
    with h5py.File(stream, "r+") as file:
        if kind == "link":
            file["evil"] = h5py.ExternalLink("/etc/passwd", "/")
        else:
            file.create_dataset("evil", (10**12,), "f4")
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["cut", "zeros", "link", "bomb"])
def test_damaged_or_hostile_weights_file_is_rejected_in_one_line(tmp_path, kind):
    path = tmp_path / "a.weights.h5"
    image = keras.Input((16, 16, 3))
    keras.Model(image, _NETWORKS["cnn_small"](image)).save_weights(path)
    path.write_bytes(_changed(path.read_bytes(), kind))
    with pytest.raises(LeafError, match=r"a\.weights\.h5: ") as caught:
        build_model("cnn_small", 16, weights=str(path), weights_sha256=store.sha256(path))
    assert "\n" not in str(caught.value)
