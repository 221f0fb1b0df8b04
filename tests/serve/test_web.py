"""Test the page and the API with a stub classifier."""

import errno
import io
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from leaf.errors import LeafError
from leaf.serve import server
from leaf.serve.batcher import Batcher
from leaf.serve.web import PAGES, create_app


@pytest.fixture
def client(stub_classifier):
    app = create_app(stub_classifier, frozenset({"127.0.0.1"}))
    with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        yield client


def post(client, content, name="leaf.png", path="/api/predict", **headers):
    return client.post(path, files={"image": (name, content)}, headers=headers)


def test_response_has_the_fields_of_a_prediction(client, png_file):
    assert post(client, png_file, "a b ü.png").json() == {
        "image": "a b ü.png",
        "label": "healthy",
        "answer": "healthy",
        "probability": pytest.approx(100 / 255),
        "threshold": 0.5,
        "known": True,
        "probabilities": {"healthy": pytest.approx(1 - 100 / 255), "unhealthy": pytest.approx(100 / 255)},
    }


def test_heatmap_is_a_png_image(client, png_file):
    response = post(client, png_file, path="/api/heatmap")
    assert response.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(response.content)).size == (288, 288)


@pytest.mark.parametrize("path", ["/api/predict", "/api/heatmap"])
def test_file_that_is_not_an_image_is_named_in_one_line(client, path):
    response = post(client, b"not an image", "notes.txt", path)
    assert (response.status_code, response.json()) == (
        422,
        {"error": "notes.txt: text, not a JPEG, PNG, WebP, BMP, TIFF, GIF, JPEG 2000, AVIF or HEIC image"},
    )


def test_truncated_file_is_rejected(client, png_file):
    assert post(client, png_file[: len(png_file) // 2]).status_code == 422


def test_decompression_bomb_is_rejected_before_decoding(client):
    file = io.BytesIO()
    Image.new("1", (12000, 12000)).save(file, "PNG")
    response = post(client, file.getvalue())
    assert (response.status_code, "pixels" in response.json()["error"]) == (422, True)


def test_upload_above_the_limit_is_rejected_by_content_length(client):
    response = post(client, bytes(server.MAX_UPLOAD + 100_000))
    assert (response.status_code, response.json()) == (413, {"error": server.TOO_LARGE})


def test_chunked_upload_above_the_limit_is_rejected_while_streaming(client):
    def chunks():
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(24):
            yield bytes(2**20)

    response = client.post(
        "/api/predict", content=chunks(), headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert (response.status_code, response.json()) == (413, {"error": server.TOO_LARGE})


@pytest.mark.parametrize(
    "form", [{}, {"data": {"image": "text"}}, {"files": {"other": b"x"}}, {"json": {"image": "x"}}]
)
def test_request_without_an_image_is_rejected_in_one_line(client, form):
    response = client.post("/api/predict", **form)
    assert (response.status_code, list(response.json())) == (422, ["error"])


@pytest.mark.parametrize("path", ["/api/predict", "/api/heatmap"])
def test_two_images_in_one_request_are_rejected(client, png_file, path):
    response = client.post(path, files=[("image", ("a.png", png_file)), ("image", ("b.png", png_file))])
    assert response.status_code == 422
    assert "2 files" in response.json()["error"]


def test_malformed_form_is_rejected_in_one_line(client):
    response = client.post("/api/predict", content=b"x", headers={"content-type": "multipart/form-data"})
    assert (response.status_code, list(response.json())) == (400, ["error"])


def test_unknown_host_name_is_rejected(client, png_file):
    assert post(client, png_file, host="evil.example:8000").status_code == 400


@pytest.mark.parametrize("host", ["LOCALHOST:8000", "localhost.:8000", "127.0.0.1"])
def test_host_name_is_accepted_in_any_case_and_with_a_trailing_dot(stub_classifier, host):
    with TestClient(create_app(stub_classifier, frozenset({"127.0.0.1", "localhost"}))) as other:
        assert other.get("/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:8000"},
    ],
)
def test_cross_site_request_is_rejected(client, png_file, headers):
    assert post(client, png_file, **headers).status_code == 403


def test_same_origin_request_is_accepted(client, png_file):
    own = {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}
    assert post(client, png_file, **own).status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/health"])
def test_head_request_has_an_empty_body(client, path):
    response = client.head(path)
    assert (response.status_code, response.content) == (200, b"")


def test_large_upload_above_the_memory_budget_gets_retry_after_and_a_small_one_succeeds(client, png_file, monkeypatch):
    monkeypatch.setattr(server, "LARGE_BUDGET", 2 * 2**20)
    large = post(client, bytes(3 * 2**20))
    assert (large.status_code, large.headers["retry-after"]) == (503, "5")
    assert post(client, png_file).status_code == 200


def test_memory_budget_of_an_upload_is_released(client, monkeypatch):
    monkeypatch.setattr(server, "LARGE_BUDGET", 4 * 2**20)
    assert [post(client, bytes(3 * 2**20)).status_code for _ in range(5)] == [422] * 5


def test_full_disk_of_the_server_is_a_507_response(client, png_file, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("starlette.datastructures.UploadFile.write", full)
    response = post(client, png_file)
    assert (response.status_code, response.json()) == (
        507,
        {"error": "the server cannot store the upload: no space left on device"},
    )


@pytest.mark.parametrize("charset", ["utf-7", "no-such-charset", "utf-16"])
def test_unusual_charset_is_not_a_server_error(client, png_file, charset):
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + png_file + b"\r\n--x--\r\n"
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    response = client.post("/api/predict", content=body, headers={"content-type": kind})
    assert response.status_code in (200, 400, 422)


def test_undecodable_file_name_is_not_a_server_error(client, png_file):
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="\xed\xa0\x80\xff"\r\n\r\n' + png_file
    headers = {"content-type": "multipart/form-data; boundary=x"}
    response = client.post("/api/predict", content=body + b"\r\n--x--\r\n", headers=headers)
    assert response.status_code in (200, 400)


def test_server_on_all_addresses_accepts_any_host_name(stub_classifier):
    with TestClient(create_app(stub_classifier), base_url="http://leaf.example") as other:
        assert other.get("/health").status_code == 200


def test_full_queue_gets_retry_after(stub_classifier, png_file, monkeypatch):
    monkeypatch.setattr("leaf.serve.web.Batcher", lambda predict: Batcher(predict, max_queue=0))
    with TestClient(create_app(stub_classifier)) as other:
        response = post(other, png_file)
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")


def test_health_describes_the_model(client):
    assert client.get("/health").json() == {
        "status": "ok",
        "model_sha256": "0" * 64,
        "classes": ["healthy", "unhealthy"],
        "image_size": 16,
        "backbone": "convnext_atto",
        "test_accuracy": 0.9,
    }


def test_unknown_path_is_a_page_for_browsers_and_json_otherwise(client):
    page = client.get("/nothing", headers={"accept": "text/html"})
    assert (page.status_code, "Not Found (404)" in page.text) == (404, True)
    assert client.get("/nothing").json() == {"error": "Not Found"}


def test_page_for_a_wrong_method_names_the_error(client):
    page = client.get("/api/predict", headers={"accept": "text/html"})
    assert (page.status_code, "Method Not Allowed (405)" in page.text) == (405, True)


def test_internal_error_shows_no_traceback(stub_classifier, png_file):
    stub_classifier.predict_prepared = lambda *_: 1 / 0
    with TestClient(create_app(stub_classifier), raise_server_exceptions=False) as other:
        response = post(other, png_file)
    assert (response.status_code, "Zero" in response.text) == (500, False)


def test_model_error_is_a_500_response(stub_classifier, png_file):
    def damaged(*_):
        raise LeafError("the model returned NaN")

    stub_classifier.predict_prepared = damaged
    with TestClient(create_app(stub_classifier), raise_server_exceptions=False) as other:
        response = post(other, png_file)
    assert (response.status_code, response.json()) == (500, {"error": "the model returned NaN"})


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_page_loads_only_its_own_files(client, path):
    response = client.get(path)
    assert response.headers["content-security-policy"].startswith("default-src 'self'")
    assert all(
        client.get(address).status_code == 200 for address in re.findall(r'(?:src|href)="([^"]+)"', response.text)
    )


def test_pages_contain_no_external_url():
    urls = {
        address
        for file in PAGES.iterdir()
        for address in re.findall(r"https?://[^\s\"'`)]+", file.read_text(encoding="utf-8"))
    }
    assert urls == {"http://www.w3.org/2000/svg"}


def test_concurrent_responses_are_not_mixed_up(client):
    def predict_gray(grey):
        file = io.BytesIO()
        Image.fromarray(np.full((20, 20, 3), grey, np.uint8)).save(file, "PNG")
        return post(client, file.getvalue(), f"{grey}.png").json()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(predict_gray, range(1, 41)))
    assert [(row["image"], round(row["probability"] * 255)) for row in answers] == [
        (f"{grey}.png", grey) for grey in range(1, 41)
    ]
