"""Fixtures: a stub classifier, a running server and a function that uploads images."""

import io
import json
import signal
import subprocess
import sys
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from leaf.serve.classifier import Prediction


def png(pixels: np.ndarray) -> bytes:
    """Return the bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def png_file() -> bytes:
    """Return a PNG file of 40×30 pixels with gray level 100."""
    return png(np.full((30, 40, 3), 100, np.uint8))


@pytest.fixture
def stub_classifier() -> SimpleNamespace:
    """Return a classifier without a model: bright images are unhealthy, and black ones are out-of-distribution."""

    def predict_prepared(names, images, views=None):
        means = np.asarray(images, float).mean((1, 2, 3)) / 255
        labels = np.where(means >= 0.5, "unhealthy", "healthy")
        rows = zip(names, labels, means.tolist(), strict=True)
        return [
            Prediction(
                name, str(label), str(label), mean, 0.5, bool(mean > 0), {"healthy": 1 - mean, "unhealthy": mean}
            )
            for name, label, mean in rows
        ]

    return SimpleNamespace(
        predict_prepared=predict_prepared,
        heatmaps=lambda images: np.full(images.shape[:3], 0.5, np.float32),
        image_size=16,
        fit="crop",
        classes=("healthy", "unhealthy"),
        sha256="0" * 64,
        backbone="convnext_atto",
        test_accuracy=0.9,
    )


def start(model, *options):
    """Start `leaf serve` on a free port, wait until it is ready, and return the process and its address."""
    command = [sys.executable, "-c", "from leaf.cli import main; main()", "serve", "--model", str(model)]
    process = subprocess.Popen([*command, "--port", "0", *options], stdout=subprocess.PIPE, text=True)
    address = process.stdout.readline().strip()
    if not address:
        pytest.fail(f"leaf serve exited {process.wait()}")
    return process, address


@pytest.fixture(scope="session")
def address(trained):
    """Return the address of a running `leaf serve` with the small trained network."""
    process, address = start(trained / "models" / "model.onnx", "--quiet")
    yield address
    process.send_signal(signal.SIGTERM)
    process.wait(30)


@pytest.fixture(scope="session")
def serve():
    """Return `start`, for tests that stop the server themselves."""
    return start


def post(address, content):
    """Upload an image and return the prediction."""
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + content + b"\r\n--x--\r\n"
    request = urllib.request.Request(
        f"{address}/api/predict", body, {"Content-Type": "multipart/form-data; boundary=x"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


@pytest.fixture(scope="session")
def upload():
    """Return `post`."""
    return post
