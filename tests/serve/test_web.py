"""The page and the API, with a stand-in for the network."""

import errno
import io
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from leaf.errors import LeafError
from leaf.serve import security as server
from leaf.serve.batcher import Batcher
from leaf.serve.web import PAGES, create_app


@pytest.fixture
def client(stand_in):
    app = create_app(stand_in, frozenset({"127.0.0.1"}))
    with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as made:
        yield made


def post(client, content, name="leaf.png", path="/api/predict", **headers):
    return client.post(path, files={"image": (name, content)}, headers=headers)


def test_an_answer_has_the_fields_of_a_prediction(client, picture):
    assert post(client, picture, "a b ü.png").json() == {
        "image": "a b ü.png",
        "label": "healthy",
        "answer": "healthy",
        "probability": pytest.approx(100 / 255),
        "threshold": 0.5,
        "known": True,
        "probabilities": {"healthy": pytest.approx(1 - 100 / 255), "unhealthy": pytest.approx(100 / 255)},
    }


def test_a_heat_map_is_a_picture(client, picture):
    answer = post(client, picture, path="/api/heatmap")
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).size == (288, 288)


@pytest.mark.parametrize("path", ["/api/predict", "/api/heatmap"])
def test_a_file_that_is_no_image_is_named_in_one_line(client, path):
    answer = post(client, b"no image", "notes.txt", path)
    assert (answer.status_code, answer.json()) == (
        422,
        {"error": "notes.txt: text, not a JPEG, PNG, WebP, BMP, TIFF, GIF, JPEG 2000, AVIF or HEIC image"},
    )


def test_a_cut_off_file_is_refused(client, picture):
    assert post(client, picture[: len(picture) // 2]).status_code == 422


def test_a_bomb_of_pixels_is_refused_before_it_is_decoded(client):
    file = io.BytesIO()
    Image.new("1", (12000, 12000)).save(file, "PNG")
    answer = post(client, file.getvalue())
    assert (answer.status_code, "pixels" in answer.json()["error"]) == (422, True)


def test_an_upload_above_the_limit_is_refused_by_its_length(client):
    answer = post(client, bytes(server.MAX_UPLOAD + 100_000))
    assert (answer.status_code, answer.json()) == (413, {"error": server.TOO_LARGE})


def test_an_upload_above_the_limit_that_hides_its_length_is_refused_while_it_comes(client):
    def chunks():
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(24):
            yield bytes(2**20)

    answer = client.post("/api/predict", content=chunks(), headers={"content-type": "multipart/form-data; boundary=x"})
    assert (answer.status_code, answer.json()) == (413, {"error": server.TOO_LARGE})


@pytest.mark.parametrize(
    "form", [{}, {"data": {"image": "text"}}, {"files": {"other": b"x"}}, {"json": {"image": "x"}}]
)
def test_a_request_without_a_photograph_is_refused_in_one_line(client, form):
    answer = client.post("/api/predict", **form)
    assert (answer.status_code, list(answer.json())) == (422, ["error"])


@pytest.mark.parametrize("path", ["/api/predict", "/api/heatmap"])
def test_two_images_in_one_request_are_refused(client, picture, path):
    answer = client.post(path, files=[("image", ("a.png", picture)), ("image", ("b.png", picture))])
    assert answer.status_code == 422
    assert "2 files" in answer.json()["error"]


def test_a_form_that_cannot_be_read_is_refused_in_one_line(client):
    answer = client.post("/api/predict", content=b"x", headers={"content-type": "multipart/form-data"})
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


def test_a_foreign_host_name_is_refused(client, picture):
    assert post(client, picture, host="evil.example:8000").status_code == 400


@pytest.mark.parametrize("host", ["LOCALHOST:8000", "localhost.:8000", "127.0.0.1"])
def test_a_host_name_is_known_in_any_case_and_with_a_final_dot(stand_in, host):
    with TestClient(create_app(stand_in, frozenset({"127.0.0.1", "localhost"}))) as made:
        assert made.get("/health", headers={"host": host}).status_code == 200


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
def test_a_page_of_another_site_may_not_ask(client, picture, headers):
    assert post(client, picture, **headers).status_code == 403


def test_its_own_page_may_ask(client, picture):
    own = {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}
    assert post(client, picture, **own).status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/health"])
def test_head_is_answered(client, path):
    answer = client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


def test_uploads_beyond_the_room_for_them_are_told_to_come_again_and_a_small_one_is_not(client, picture, monkeypatch):
    monkeypatch.setattr(server, "LARGE_BUDGET", 2 * 2**20)
    large = post(client, bytes(3 * 2**20))
    assert (large.status_code, large.headers["retry-after"]) == (503, "5")
    assert post(client, picture).status_code == 200


def test_the_room_of_an_upload_is_given_back(client, monkeypatch):
    monkeypatch.setattr(server, "LARGE_BUDGET", 4 * 2**20)
    assert [post(client, bytes(3 * 2**20)).status_code for _ in range(5)] == [422] * 5


def test_a_full_disk_of_the_server_is_its_own_fault_and_said(client, picture, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("starlette.datastructures.UploadFile.write", full)
    answer = post(client, picture)
    assert (answer.status_code, answer.json()) == (
        507,
        {"error": "the server cannot store the upload: no space left on device"},
    )


@pytest.mark.parametrize("charset", ["utf-7", "no-such-charset", "utf-16"])
def test_an_odd_charset_is_an_answer_and_no_fault(client, picture, charset):
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + picture + b"\r\n--x--\r\n"
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    answer = client.post("/api/predict", content=body, headers={"content-type": kind})
    assert answer.status_code in (200, 400, 422)


def test_a_file_name_that_is_no_text_is_an_answer_and_no_fault(client, picture):
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="\xed\xa0\x80\xff"\r\n\r\n' + picture
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = client.post("/api/predict", content=body + b"\r\n--x--\r\n", headers=headers)
    assert answer.status_code in (200, 400)


def test_a_server_that_is_open_to_others_answers_to_any_name(stand_in):
    with TestClient(create_app(stand_in), base_url="http://leaf.example") as made:
        assert made.get("/health").status_code == 200


def test_too_many_waiting_images_are_told_to_come_again(stand_in, picture, monkeypatch):
    monkeypatch.setattr("leaf.serve.web.Batcher", lambda predict: Batcher(predict, max_queue=0))
    with TestClient(create_app(stand_in)) as made:
        answer = post(made, picture)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_health_names_the_model(client):
    assert client.get("/health").json() == {
        "status": "ok",
        "model_sha256": "0" * 64,
        "classes": ["healthy", "unhealthy"],
        "image_size": 16,
        "backbone": "convnext_atto",
        "test_accuracy": 0.9,
    }


def test_a_browser_that_asks_for_nothing_there_gets_a_page_and_a_program_one_line(client):
    page = client.get("/nothing", headers={"accept": "text/html"})
    assert (page.status_code, "Page not found (404)" in page.text) == (404, True)
    assert client.get("/nothing").json() == {"error": "Not Found"}


def test_a_fault_of_ours_shows_no_traceback(stand_in, picture):
    stand_in.predict_prepared = lambda *_: 1 / 0
    with TestClient(create_app(stand_in), raise_server_exceptions=False) as made:
        answer = post(made, picture)
    assert (answer.status_code, "Zero" in answer.text) == (500, False)


def test_a_fault_of_the_network_is_no_answer_and_no_fault_of_the_photograph(stand_in, picture):
    def damaged(*_):
        raise LeafError("the network gives NaN")

    stand_in.predict_prepared = damaged
    with TestClient(create_app(stand_in), raise_server_exceptions=False) as made:
        answer = post(made, picture)
    assert (answer.status_code, answer.json()) == (500, {"error": "the network gives NaN"})


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_loads_nothing_from_elsewhere(client, path):
    answer = client.get(path)
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    assert all(client.get(address).status_code == 200 for address in re.findall(r'(?:src|href)="([^"]+)"', answer.text))


def test_no_page_names_another_server():
    named = {
        address
        for file in PAGES.iterdir()
        for address in re.findall(r"https?://[^\s\"'`)]+", file.read_text(encoding="utf-8"))
    }
    assert named == {"http://www.w3.org/2000/svg"}


def test_answers_of_many_at_once_do_not_mix(client):
    def ask(grey):
        file = io.BytesIO()
        Image.fromarray(np.full((20, 20, 3), grey, np.uint8)).save(file, "PNG")
        return post(client, file.getvalue(), f"{grey}.png").json()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(1, 41)))
    assert [(row["image"], round(row["probability"] * 255)) for row in answers] == [
        (f"{grey}.png", grey) for grey in range(1, 41)
    ]
