"""What the page asks of the server: who may ask, what a ruling writes, when a reason is needed."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from leaf.errors import LeafError
from leaf.review.app import REASON, Review, create_app
from leaf.review.session import original

from .conftest import WRONG, git, rows

TEST_IMAGE = 33


@pytest.fixture
def client(review: Review) -> Iterator[TestClient]:
    """The page of a project; `client.rule(...)` rules."""
    app = create_app(review, "token", frozenset({"127.0.0.1"}))
    with TestClient(app, base_url="http://127.0.0.1:8000") as made:
        made.rule = lambda *images, **said: made.post("/token/api/rule", json={"images": images, **said})
        yield made


def case_of(client: TestClient, question: str) -> tuple[int, list[Any]]:
    found = client.get("/token/api/run").json()["cases"]
    return next((place, case) for place, case in enumerate(found) if case[0] == question)


def hash_of(folder: Path, image: int) -> str:
    return pd.read_csv(folder / "data/ingested/index.csv")["file_hash"][image]


@pytest.mark.parametrize("path", ["/", "/api/run", "/assets/page.js", "/other/api/run", "/token/../api/run"])
def test_nothing_is_told_without_the_token(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_a_foreign_host_and_a_foreign_origin_are_refused(client: TestClient, reviewed: Path) -> None:
    assert client.get("/token/api/run", headers={"host": "evil.example:8000"}).status_code == 400
    said = {"images": [3], "ruling": "drop"}
    for origin in ("http://evil.example", "http://127.0.0.1:9000", "null"):
        answer = client.post("/token/api/rule", json=said, headers={"origin": origin})
        assert answer.status_code == 403
    assert rows(reviewed).empty
    own = client.post("/token/api/rule", json=said, headers={"origin": "http://127.0.0.1:8000"})
    assert own.status_code == 200


def test_every_kind_of_question_is_asked_the_conflict_first(client: TestClient) -> None:
    cases = client.get("/token/api/run").json()["cases"]
    assert [case[0] for case in cases] == ["conflict", *["label"] * len(WRONG), "flag", "copy"]
    assert {case[1] for case in cases if case[0] == "label"} == set(WRONG)


def test_a_ruling_is_a_signed_row(client: TestClient, reviewed: Path) -> None:
    client.rule(3, ruling="relabel", label="healthy", why=" two\nlines ")
    (row,) = rows(reviewed).to_dict("records")
    assert (row["hash"], row["ruling"], row["label"]) == (hash_of(reviewed, 3), "relabel", "healthy")
    assert (row["who"], row["why"]) == ("Ada", "two lines")
    assert pd.Timestamp.now("UTC") - pd.Timestamp(row["date"]) < pd.Timedelta("1h")


@pytest.mark.parametrize("ruling", [{"ruling": "drop"}, {"ruling": "relabel", "label": "healthy"}])
def test_a_test_image_needs_a_reason(client: TestClient, reviewed: Path, ruling: dict[str, str]) -> None:
    answer = client.rule(3, TEST_IMAGE, **ruling)
    assert (answer.status_code, answer.json()) == (422, {"error": REASON, "reason": True})
    assert rows(reviewed).empty
    assert client.rule(TEST_IMAGE, **ruling, why="rust on the rim").status_code == 200


def test_what_was_seen_is_remembered_and_is_no_ruling(client: TestClient, review: Review, reviewed: Path) -> None:
    place, (question, image, _, _) = case_of(client, "label")
    answer = client.rule(image, ruling="seen", question=question)
    assert answer.json()["answers"][place] == "seen"
    assert answer.json()["summary"] == "0 rulings"
    assert rows(reviewed).empty
    assert rows(reviewed, "reviewed")[["verdict", "question"]].values.tolist() == [["seen", "label"]]
    again = create_app(review, "token")
    assert TestClient(again).get("/token/api/answers").json()["answers"][place] == "seen"


def test_a_pair_is_grouped_or_parted(client: TestClient, reviewed: Path) -> None:
    place, (_, image, other, _) = case_of(client, "copy")
    assert client.rule(image, ruling="apart", other=other).json()["answers"][place] == "apart"
    assert client.rule(image, ruling="group", other=other).json()["answers"][place] == "group"
    (row,) = rows(reviewed).to_dict("records")
    assert {row["hash"], row["other"]} == {hash_of(reviewed, image), hash_of(reviewed, other)}


def test_many_are_ruled_at_once_and_counted(client: TestClient, reviewed: Path) -> None:
    assert client.rule(12, 13, 14, ruling="drop").json()["summary"] == "3 rulings: 3 dropped"
    git(reviewed, "commit", "-qam", "rulings")
    assert client.rule(15, ruling="keep").json()["summary"] == "1 ruling: 1 kept"


def test_undo_takes_a_ruling_back_and_sets_back_what_it_replaced(client: TestClient, reviewed: Path) -> None:
    client.rule(3, ruling="keep")
    before = (reviewed / "data/overrides.csv").read_bytes()
    changed = client.rule(3, ruling="drop").json()["changed"]
    assert client.post("/token/api/undo", json=changed).status_code == 200
    assert (reviewed / "data/overrides.csv").read_bytes() == before
    again = client.post("/token/api/undo", json=changed)
    assert (again.status_code, "another hand" in again.json()["error"]) == (422, True)


@pytest.mark.parametrize(
    "said",
    [
        {"images": [999], "ruling": "drop"},
        {"images": [-1], "ruling": "drop"},
        {"images": [], "ruling": "drop"},
        {"images": [3], "ruling": "burn"},
        {"images": [3], "ruling": "relabel", "label": "sick"},
        {"images": [3], "ruling": "relabel"},
        {"images": [3], "ruling": "drop", "label": "healthy"},
        {"images": [3], "ruling": "group"},
        {"images": [3], "ruling": "group", "other": 999},
        {"images": [3], "ruling": "drop", "who": "Bob"},
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(client: TestClient, reviewed: Path, said: dict[str, Any]) -> None:
    answer = client.post("/token/api/rule", json=said)
    assert answer.status_code == 422
    assert "\n" not in answer.json()["error"]
    assert rows(reviewed).empty


def test_pictures_come_from_the_array(client: TestClient, reviewed: Path) -> None:
    sent = client.get("/token/picture/7.png")
    shown = cv2.imdecode(np.frombuffer(sent.content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert (shown == np.load(reviewed / "data/ingested/images.npy")[7]).all()
    assert client.get("/token/picture/999.png").status_code == 422
    assert client.get("/token/original/7.jpg").status_code == 404


def test_one_image_is_told_as_leaf_why_does_with_its_neighbours(client: TestClient) -> None:
    told = client.get("/token/api/image/5").json()
    assert ["flags", "dark"] in told["lines"]
    assert len(told["neighbours"]) == 6
    assert 5 not in told["neighbours"]
    assert client.get("/token/api/image/0").json()["neighbours"][0] == 48


@pytest.mark.parametrize(
    "body",
    [
        {"file": "data/overrides.csv", "added": [{"ruling": "drop"}], "replaced": []},
        {"file": "data/overrides.csv", "added": [], "replaced": [{"hash": "a", "ruling": "burn"}]},
        {"file": "data/reviewed.csv", "added": [], "replaced": [{"hash": "a", "verdict": "burn"}]},
    ],
)
def test_undo_rejects_invalid_rows(client: TestClient, reviewed: Path, body: dict[str, Any]) -> None:
    before = (reviewed / "data/overrides.csv").read_bytes()
    assert client.post("/token/api/undo", json=body).status_code == 422
    assert (reviewed / "data/overrides.csv").read_bytes() == before


@pytest.mark.parametrize("field", ["question", "label", "why"])
@pytest.mark.parametrize("text", [r"\ud800", "x" * 5_000_000])
def test_invalid_text_is_rejected(client: TestClient, reviewed: Path, field: str, text: str) -> None:
    content = f'{{"images": [3], "ruling": "seen", "{field}": "{text}"}}'
    answer = client.post("/token/api/rule", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert not (reviewed / "data/reviewed.csv").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_disk_error_is_reported_for_retry(client: TestClient, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number), "data/overrides.csv")

    monkeypatch.setattr("leaf.review.rulings.write_table", fail)
    answer = client.rule(3, ruling="drop")
    assert answer.status_code == 507
    assert answer.json() == {"error": f"data/overrides.csv: {os.strerror(number).lower()}", "retry": True}


def test_page_of_another_run_is_rejected_and_the_new_run_loaded(review: Review, reviewed: Path) -> None:
    loads = []

    def reload() -> Review:
        loads.append(1)
        return review

    with TestClient(create_app(review, "token", reload=reload)) as client:
        run = client.get("/token/api/run").json()["run"]
        drop = {"images": [3], "ruling": "drop"}
        assert client.post(f"/token/api/rule?run={run}", json=drop).status_code == 200
        index = reviewed / "data/ingested/index.csv"
        os.utime(index, ns=(1, 1))
        answer = client.post(f"/token/api/rule?run={run}", json=drop)
        assert (answer.status_code, answer.json()["reload"]) == (409, True)
        assert client.get(f"/token/picture/3.png?run={run}").status_code == 409
        new = client.get("/token/api/run").json()["run"]
        assert client.get(f"/token/picture/3.png?run={new}").status_code == 200
        assert loads == [1]


def test_original_keeps_its_aspect_ratio_and_is_bounded(tmp_path: Path) -> None:
    pixels = np.full((1000, 4000, 3), 90, np.uint8)
    cv2.imwrite(str(tmp_path / "wide.png"), pixels)
    found = original(tmp_path, {"source": "wide.png", "width": 4000, "height": 1000})
    assert found is not None
    assert found.shape == (512, 2048, 3)
    assert (found == 90).all()
    (tmp_path / "broken.png").write_bytes(b"text")
    with pytest.raises(LeafError, match="broken"):
        original(tmp_path, {"source": "broken.png", "width": 8, "height": 8})
