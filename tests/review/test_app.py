"""Test the review page's API: access control, the rows that a decision writes, and required reasons."""

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
    """Return a test client for the API. `client.decide(...)` sends a decision."""
    app = create_app(review, "token", frozenset({"127.0.0.1"}))
    with TestClient(app, base_url="http://127.0.0.1:8000") as made:
        made.decide = lambda *images, **said: made.post("/token/api/decide", json={"images": images, **said})
        yield made


def case_of(client: TestClient, question: str) -> tuple[int, list[Any]]:
    found = client.get("/token/api/run").json()["cases"]
    return next((place, case) for place, case in enumerate(found) if case[0] == question)


def hash_of(folder: Path, image: int) -> str:
    return pd.read_csv(folder / "data/ingested/index.csv")["file_hash"][image]


@pytest.mark.parametrize("path", ["/", "/api/run", "/assets/page.js", "/other/api/run", "/token/../api/run"])
def test_every_path_requires_the_token(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_foreign_host_and_origin_are_rejected(client: TestClient, reviewed: Path) -> None:
    assert client.get("/token/api/run", headers={"host": "evil.example:8000"}).status_code == 400
    said = {"images": [3], "decision": "drop"}
    for origin in ("http://evil.example", "http://127.0.0.1:9000", "null"):
        answer = client.post("/token/api/decide", json=said, headers={"origin": origin})
        assert answer.status_code == 403
    assert rows(reviewed).empty
    own = client.post("/token/api/decide", json=said, headers={"origin": "http://127.0.0.1:8000"})
    assert own.status_code == 200


def test_each_kind_of_case_is_listed_conflict_first(client: TestClient) -> None:
    cases = client.get("/token/api/run").json()["cases"]
    assert [case[0] for case in cases] == ["conflict", *["label"] * len(WRONG), "flag", "copy"]
    assert {case[1] for case in cases if case[0] == "label"} == set(WRONG)


def test_decision_row_has_author_reason_file_and_date(client: TestClient, reviewed: Path) -> None:
    client.decide(3, decision="relabel", label="healthy", why=" two\nlines ")
    (row,) = rows(reviewed).to_dict("records")
    assert (row["hash"], row["ruling"], row["label"]) == (hash_of(reviewed, 3), "relabel", "healthy")
    assert (row["who"], row["why"], row["file"]) == ("Ada", "two lines", "3.png")
    assert pd.Timestamp.now("UTC") - pd.Timestamp(row["date"]) < pd.Timedelta("1h")


@pytest.mark.parametrize("decision", [{"decision": "drop"}, {"decision": "relabel", "label": "healthy"}])
def test_decision_on_a_test_image_requires_a_reason(
    client: TestClient, reviewed: Path, decision: dict[str, str]
) -> None:
    answer = client.decide(3, TEST_IMAGE, **decision)
    assert (answer.status_code, answer.json()) == (422, {"error": REASON, "reason": True})
    assert rows(reviewed).empty
    assert client.decide(TEST_IMAGE, **decision, why="rust on the rim").status_code == 200


def test_seen_is_stored_and_is_not_an_override(client: TestClient, review: Review, reviewed: Path) -> None:
    place, (question, image, _, _) = case_of(client, "label")
    answer = client.decide(image, decision="seen", question=question)
    assert answer.json()["answers"][place] == "seen"
    assert answer.json()["summary"] == "0 decisions"
    assert rows(reviewed).empty
    assert rows(reviewed, "reviewed")[["verdict", "question"]].values.tolist() == [["seen", "label"]]
    again = create_app(review, "token")
    assert TestClient(again).get("/token/api/answers").json()["answers"][place] == "seen"


def test_pair_is_grouped_or_separated(client: TestClient, reviewed: Path) -> None:
    place, (_, image, other, _) = case_of(client, "copy")
    assert client.decide(image, decision="apart", other=other).json()["answers"][place] == "apart"
    assert client.decide(image, decision="group", other=other).json()["answers"][place] == "group"
    (row,) = rows(reviewed).to_dict("records")
    assert row["file"] == "49.png | 2.png"
    assert {row["hash"], row["other"]} == {hash_of(reviewed, image), hash_of(reviewed, other)}


def test_decision_on_several_images_is_counted(client: TestClient, reviewed: Path) -> None:
    assert client.decide(12, 13, 14, decision="drop").json()["summary"] == "3 decisions: 3 dropped"
    git(reviewed, "commit", "-qam", "decisions")
    assert client.decide(15, decision="keep").json()["summary"] == "1 decision: 1 kept"


def test_undo_restores_the_replaced_decision(client: TestClient, reviewed: Path) -> None:
    client.decide(3, decision="keep")
    before = (reviewed / "data/overrides.csv").read_bytes()
    changed = client.decide(3, decision="drop").json()["changed"]
    assert client.post("/token/api/undo", json=changed).status_code == 200
    assert (reviewed / "data/overrides.csv").read_bytes() == before
    again = client.post("/token/api/undo", json=changed)
    assert (again.status_code, "another program" in again.json()["error"]) == (422, True)


@pytest.mark.parametrize(
    "said",
    [
        {"images": [999], "decision": "drop"},
        {"images": [-1], "decision": "drop"},
        {"images": [], "decision": "drop"},
        {"images": [3], "decision": "burn"},
        {"images": [3], "decision": "relabel", "label": "sick"},
        {"images": [3], "decision": "relabel"},
        {"images": [3], "decision": "drop", "label": "healthy"},
        {"images": [3], "decision": "group"},
        {"images": [3], "decision": "group", "other": 999},
        {"images": [3], "decision": "drop", "who": "Bob"},
    ],
)
def test_invalid_decision_gives_a_one_line_error(client: TestClient, reviewed: Path, said: dict[str, Any]) -> None:
    answer = client.post("/token/api/decide", json=said)
    assert answer.status_code == 422
    assert "\n" not in answer.json()["error"]
    assert rows(reviewed).empty


def test_images_match_the_ingested_array(client: TestClient, reviewed: Path) -> None:
    sent = client.get("/token/image/7.png")
    shown = cv2.imdecode(np.frombuffer(sent.content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert (shown == np.load(reviewed / "data/ingested/images.npy")[7]).all()
    assert client.get("/token/image/999.png").status_code == 422
    assert client.get("/token/original/7.jpg").status_code == 404


def test_image_has_the_history_of_leaf_why_and_its_nearest_images(client: TestClient) -> None:
    found = client.get("/token/api/image/5").json()
    assert ["flags", "dark"] in found["lines"]
    assert len(found["neighbors"]) == 6
    assert 5 not in found["neighbors"]
    assert client.get("/token/api/image/0").json()["neighbors"][0] == 48


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
    content = f'{{"images": [3], "decision": "seen", "{field}": "{text}"}}'
    answer = client.post("/token/api/decide", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert not (reviewed / "data/reviewed.csv").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_disk_error_is_reported_for_retry(client: TestClient, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number), "data/overrides.csv")

    monkeypatch.setattr("leaf.review.decision_files.write_table", fail)
    answer = client.decide(3, decision="drop")
    assert answer.status_code == 507
    assert answer.json() == {"error": f"data/overrides.csv: {os.strerror(number).lower()}", "retry": True}


def test_page_of_an_old_run_is_rejected_and_the_new_run_is_loaded(review: Review, reviewed: Path) -> None:
    loads = []

    def reload() -> Review:
        loads.append(1)
        return review

    with TestClient(create_app(review, "token", reload=reload)) as client:
        run = client.get("/token/api/run").json()["run"]
        drop = {"images": [3], "decision": "drop"}
        assert client.post(f"/token/api/decide?run={run}", json=drop).status_code == 200
        index = reviewed / "data/ingested/index.csv"
        os.utime(index, ns=(1, 1))
        answer = client.post(f"/token/api/decide?run={run}", json=drop)
        assert (answer.status_code, answer.json()["reload"]) == (409, True)
        assert client.get(f"/token/image/3.png?run={run}").status_code == 409
        new = client.get("/token/api/run").json()["run"]
        assert client.get(f"/token/image/3.png?run={new}").status_code == 200
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


def pinned(folder: Path) -> pd.Series:
    return pd.read_csv(folder / "data/pinned.csv", dtype=str).set_index("file_hash")["split"]


def test_first_decision_pins_the_split_so_that_no_image_moves(client: TestClient, reviewed: Path) -> None:
    assert client.decide(3, decision="seen", question="label").json()["note"] == ""
    assert pinned(reviewed).empty
    assert "50 images pinned" in client.decide(3, decision="drop").json()["note"]
    assert pinned(reviewed)[hash_of(reviewed, TEST_IMAGE)] == "test"
    assert client.decide(8, decision="drop").json()["note"] == ""


def test_grouped_images_are_pinned_to_one_split(client: TestClient, reviewed: Path) -> None:
    answer = client.decide(4, decision="group", other=TEST_IMAGE)
    assert "moved 1 image to test" in answer.json()["note"]
    assert pinned(reviewed)[hash_of(reviewed, 4)] == "test"


def test_decisions_that_match_no_image_are_listed_by_file(client: TestClient, reviewed: Path) -> None:
    with (reviewed / "data/overrides.csv").open("a") as file:
        file.write("0123456789abcdef0123456789abcdef,drop,,Ada,blurred,,,,old/leaf.png\n")
    assert client.get("/token/api/answers").json()["unused"] == ["old/leaf.png"]
