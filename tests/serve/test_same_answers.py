"""After a run of the pipeline: command, Python, API, page and ONNX file agree on the same twenty photographs."""

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
def photographs(request, tmp_path_factory):
    """Twenty files; real ones are JPEG photographs of 256×256."""
    folder = tmp_path_factory.mktemp("photographs")
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
def rows(project, photographs):
    """What Python says of them."""
    found = leaf.load(project.folder / "models" / "model.onnx").predict(photographs)
    assert [row.image for row in found] == [str(file) for file in photographs]
    assert np.ptp([row.probability for row in found]) > 1e-3  # not the same answer to everything
    return found


@pytest.fixture(scope="module")
def server(project, serve):
    """The address of `leaf serve` in the project."""
    process, address = serve(project.folder / "models" / "model.onnx", "--quiet")
    yield address
    process.send_signal(signal.SIGTERM)
    process.wait(30)


def agree(answers, rows):
    for answer, row in zip(answers, rows, strict=True):
        for key in ("label", "answer", "known", "threshold"):
            assert answer[key] == getattr(row, key)
        assert answer["probabilities"] == pytest.approx(row.probabilities, abs=1e-6)


def test_the_command_agrees_with_python(project, photographs, rows):
    said = project.run("leaf", "predict", *map(str, photographs), "--json").stdout
    agree(json.loads(said), rows)


def test_the_api_agrees_with_python(server, photographs, rows):
    agree([_post(server, file.read_bytes()) for file in photographs], rows)


@pytest.mark.browser
def test_the_page_agrees_with_python(server, photographs, rows, chromium):
    page = chromium.new_page()
    page.goto(server)
    page.set_input_files("#files", [str(file) for file in photographs])
    page.locator(f'.card:not([data-state="waiting"]) >> nth={COUNT - 1}').wait_for(timeout=120_000)
    shown = {card.locator(".name").inner_text(): card for card in page.locator(".card").all()}
    for file, row in zip(photographs, rows, strict=True):
        state = {"healthy": "first", "unhealthy": "second"}.get(row.answer, "unknown")
        assert shown[file.name].get_attribute("data-state") == state
        if row.answer == row.label:
            assert f"{100 * row.probability:.1f}" in shown[file.name].locator(".figures").inner_text()
    page.close()


def test_another_program_that_runs_the_onnx_file_agrees_with_python(project, photographs, rows):
    session = onnxruntime.InferenceSession(project.folder / "models" / "model.onnx")
    side = session.get_inputs()[0].shape[1]
    pixels = np.stack([prepare(file, side, file.name) for file in photographs]).astype(np.float32)
    given = session.run(["probabilities"], {session.get_inputs()[0].name: pixels})[0]
    np.testing.assert_allclose(given, [list(row.probabilities.values()) for row in rows], atol=1e-5)
    told = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}
    assert told["classes"] == list(rows[0].probabilities)
    assert (told["threshold"], told["image_size"], told["fit"]) == (rows[0].threshold, side, "crop")


def _post(address, content):
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + content + b"\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    with urllib.request.urlopen(urllib.request.Request(f"{address}/api/predict", body, kind), timeout=60) as answer:
        return json.load(answer)
