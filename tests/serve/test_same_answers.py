"""`leaf predict`, the Python API, the JSON API, the page and the ONNX file agree on twenty images."""

import json
import signal
import urllib.request

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import leaf
from leaf.serve.classifier import prepare
from leaf.synthesize import draw_leaf

pytestmark = pytest.mark.slow
COUNT = 20


@pytest.fixture(scope="module", params=["drawn", pytest.param("real", marks=pytest.mark.realdata)])
def image_files(request, tmp_path_factory):
    """Return twenty JPEG files, either synthetic leaves or real photos of 256×256 pixels."""
    folder = tmp_path_factory.mktemp("images")
    if request.param == "real":
        files = sorted((request.getfixturevalue("shared") / "leaves_by_plant").glob("*/*.jp*g"))
        for file in files[:: len(files) // COUNT][:COUNT]:
            (folder / f"{file.parent.name}-{file.name}").write_bytes(file.read_bytes())
    else:
        rng = np.random.default_rng(8)
        for number in range(COUNT):
            Image.fromarray(draw_leaf(rng, 80, bool(number % 2))).save(folder / f"{number:02}.jpg", quality=90)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def rows(project, image_files):
    """Return the predictions of the Python API."""
    predictions = leaf.load(project.folder / "models" / "model.onnx").predict(image_files)
    assert [row.image for row in predictions] == [str(file) for file in image_files]
    assert np.ptp([row.probability for row in predictions]) > 1e-3  # predictions are not all equal
    return predictions


@pytest.fixture(scope="module")
def server(project, serve):
    """Return the address of `leaf serve` in the project."""
    process, address = serve(project.folder / "models" / "model.onnx", "--quiet")
    yield address
    process.send_signal(signal.SIGTERM)
    process.wait(30)


def assert_equal_predictions(answers, rows):
    for answer, row in zip(answers, rows, strict=True):
        for key in ("label", "answer", "known", "threshold"):
            assert answer[key] == getattr(row, key)
        assert answer["probabilities"] == pytest.approx(row.probabilities, abs=1e-6)


def test_command_agrees_with_python(project, image_files, rows):
    output = project.run("leaf", "predict", *map(str, image_files), "--json").stdout
    assert_equal_predictions(json.loads(output), rows)


def test_api_agrees_with_python(server, image_files, rows):
    assert_equal_predictions([_post(server, file.read_bytes()) for file in image_files], rows)


@pytest.mark.browser
def test_page_agrees_with_python(server, image_files, rows, chromium):
    page = chromium.new_page()
    page.goto(server)
    page.set_input_files("#files", [str(file) for file in image_files])
    page.locator(f'.card:not([data-state="waiting"]) >> nth={COUNT - 1}').wait_for(timeout=120_000)
    shown = {card.locator(".name").inner_text(): card for card in page.locator(".card").all()}
    for file, row in zip(image_files, rows, strict=True):
        state = {"healthy": "first", "unhealthy": "second"}.get(row.answer, "unknown")
        assert shown[file.name].get_attribute("data-state") == state
        if row.answer == row.label:
            assert f"{100 * row.probability:.1f}" in shown[file.name].locator(".figures").inner_text()
    page.close()


def test_onnx_file_in_another_program_agrees_with_python(project, image_files, rows):
    session = onnxruntime.InferenceSession(project.folder / "models" / "model.onnx")
    side = session.get_inputs()[0].shape[1]
    pixels = np.stack([prepare(file, side, file.name) for file in image_files]).astype(np.float32)
    probabilities = session.run(["probabilities"], {session.get_inputs()[0].name: pixels})[0]
    np.testing.assert_allclose(probabilities, [list(row.probabilities.values()) for row in rows], atol=1e-5)
    metadata = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}
    assert metadata["classes"] == list(rows[0].probabilities)
    assert (metadata["threshold"], metadata["image_size"], metadata["fit"]) == (rows[0].threshold, side, "crop")


def _post(address, content):
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + content + b"\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    with urllib.request.urlopen(urllib.request.Request(f"{address}/api/predict", body, kind), timeout=60) as response:
        return json.load(response)
