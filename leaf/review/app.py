"""The review page and its API, served on loopback under a secret token."""

import csv
import hashlib
import subprocess
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import cv2
import numpy as np
import pandas as pd
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from leaf.clean.decisions import TEXT, read_rulings
from leaf.clean.same_photo import align, laid_over
from leaf.errors import LeafError
from leaf.review.queue import QUESTIONS, LabelAssessment, answers
from leaf.review.rulings import FILES, OVERRIDES, REVIEWED, SEEN, File, Row, change, read_rows, resolved, summary
from leaf.serve.security import add_security

PAGES = Path(__file__).with_name("page")
NEIGHBOURS = 6
REASON = "test image: a change because of the model's prediction biases the test score. Give a visible reason."


@dataclass(frozen=True)
class Review:
    """A run under review.

    Attributes:
        folder: project folder.
        classes: class names.
        images: uint8 or float32 in 0..255, (N, S, S, 3).
        index: data/ingested/index.csv, N rows.
        decisions: data/cleaned/decisions.csv, N rows.
        split: text (N,), "" for images in no split.
        cases: result of `leaf.review.queue.cases`.
        held_out: held-out predictions.
        points: float32 (N, D), descriptors for the nearest images.
        explain: maps an image number to the output of `leaf why`.
        original: maps an image number to the original file, uint8 (H, W, 3), or None without one.
        who: author of the decisions.
        run: run that proposed the cases.
    """

    folder: Path
    classes: Sequence[str]
    images: np.ndarray
    index: pd.DataFrame
    decisions: pd.DataFrame
    split: np.ndarray
    cases: pd.DataFrame
    held_out: LabelAssessment
    points: np.ndarray
    explain: Callable[[int], str]
    original: Callable[[int], np.ndarray | None]
    who: str
    run: str

    def rows(self, name: File) -> list[Row]:
        """Return the current rows of a file."""
        return read_rows(self.folder / name, FILES[name])

    def answers(self) -> dict[str, Any]:
        """Return the decision on each case and a summary."""
        overrides = self.rows(OVERRIDES)
        rulings = read_rulings(pd.DataFrame(overrides, columns=list(TEXT)), self.index, self.classes)
        reviewed = resolved(self.rows(REVIEWED), self.index)
        said = answers(self.cases, self.index["hash"].tolist(), rulings, self.classes, reviewed)
        return {"answers": said, "summary": summary(overrides, committed(self.folder))}

    def tested(self, images: Sequence[int]) -> bool:
        """Return whether any copy of `images` is in the test split."""
        hashes = self.index["hash"]
        return bool(hashes[self.split == "test"].isin(hashes[list(images)]).any())


Cell = Annotated[str, StringConstraints(max_length=2000)]
Decision = Literal["keep", "drop", "relabel", "group", "apart", "seen", "unsure"]


class Ruling(BaseModel):
    """A manual decision on each of `images`; `group` and `apart` pair the first image with each of the others."""

    model_config = ConfigDict(extra="forbid")
    images: list[Annotated[int, Field(ge=0)]] = Field(min_length=1, max_length=100_000)
    ruling: Decision
    label: str = Field("", max_length=500)
    question: str = Field("", max_length=50)
    other: int = -1
    why: str = Field("", max_length=500)


class Changed(BaseModel):
    """The rows that a decision added and replaced, for undo."""

    model_config = ConfigDict(extra="forbid")
    file: File
    added: list[dict[str, Cell]] = Field(max_length=100_000)
    replaced: list[dict[str, Cell]] = Field(max_length=100_000)

    @model_validator(mode="after")
    def check_rows(self) -> "Changed":
        column, valid = ("verdict", SEEN) if self.file == REVIEWED else ("ruling", get_args(Decision)[:5])
        for row in [*self.added, *self.replaced]:
            missing = set(FILES[self.file]) - set(row)
            if missing or not row["hash"] or row[column].strip() not in valid:
                raise ValueError(f"a row needs {', '.join(FILES[self.file])}; {column} is one of {', '.join(valid)}")
        return self


def committed(folder: Path) -> list[Row]:
    """Return the rows of data/overrides.csv in the last commit."""
    shown = subprocess.run(["git", "show", f"HEAD:./{OVERRIDES}"], cwd=folder, capture_output=True, text=True)
    lines = shown.stdout.splitlines() if shown.returncode == 0 else []
    return [{name: row.get(name) or "" for name in FILES[OVERRIDES]} for row in csv.DictReader(lines)]


_RUN_FILES = ("data/ingested/index.csv", "data/cleaned/decisions.csv", "data/split/splits.csv", "models/run.json")


def run_identity(folder: Path) -> str:
    """Return a short hash of the sizes and modification times of the run's files."""
    digest = hashlib.blake2b(digest_size=8)
    for name in _RUN_FILES:
        path = folder / name
        found = path.stat() if path.exists() else None
        digest.update(f"{name} {found and (found.st_size, found.st_mtime_ns)};".encode())
    return digest.hexdigest()


def rule(review: Review, said: Ruling) -> Changed:
    """Write a decision. Raises LeafError for an unknown image or label, or a missing reason."""
    # unlike the hash of the pixels, file_hash does not depend on image_size
    hashes = review.index["file_hash"].to_numpy()
    if max(*said.images, said.other) >= len(hashes):
        raise LeafError(f"images: valid: 0 to {len(hashes) - 1}")
    pictures = list(dict.fromkeys(hashes[image] for image in said.images))
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    signed = {"who": review.who, "why": " ".join(said.why.split()), "date": now, "run": review.run}
    if said.ruling in ("seen", "unsure"):
        other = hashes[said.other] if said.other >= 0 else ""
        rows = [{"verdict": said.ruling, "question": said.question, "other": other, "hash": each} for each in pictures]
        file: File = REVIEWED
    else:
        if (said.ruling == "relabel") != (said.label in review.classes):
            raise LeafError(
                f"label: {said.label!r} with {said.ruling}; valid: with relabel {', '.join(review.classes)}"
            )
        if said.ruling in ("group", "apart"):
            first, *others = dict.fromkeys([*pictures, *([hashes[said.other]] if said.other >= 0 else [])])
            if not others:
                raise LeafError(f"{said.ruling}: one image given. Select two or more.")
            rows = [{"hash": first, "other": other} for other in others]
        else:
            if not signed["why"] and review.tested(said.images):
                raise LeafError(REASON)
            rows = [{"hash": picture, "other": ""} for picture in pictures]
        rows = [row | {"ruling": said.ruling, "label": said.label} for row in rows]
        file = OVERRIDES
    added = [{name: (row | signed)[name] for name in FILES[file]} for row in rows]
    return Changed(file=file, added=added, replaced=change(review.folder / file, FILES[file], review.index, added))


def create_app(
    review: Review, token: str, hosts: Collection[str] = ("*",), reload: Callable[[], Review] | None = None
) -> FastAPI:
    """Create the web application under `/token/`.

    Args:
        review: the run.
        token: first part of each path.
        hosts: accepted Host headers.
        reload: loads the run again after its files changed.
    """
    app = FastAPI(title="leaf review", docs_url=None, redoc_url=None, openapi_url=None)
    add_security(app, hosts)

    @app.exception_handler(LeafError)
    async def refused(_: Request, error: LeafError) -> Response:
        return JSONResponse({"error": str(error), "reason": str(error) == REASON}, 422)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return JSONResponse({"error": f"{'.'.join(map(str, first['loc']))}: {first['msg']}"}, 422)

    loaded = run_identity(review.folder)
    lock = threading.Lock()

    def check_run(page: Annotated[str, Query(alias="run")] = "") -> None:
        """Reload a changed run; reject a page that shows another run."""
        nonlocal review, loaded
        with lock:
            found = run_identity(review.folder)
            if found != loaded and reload is not None:
                review, loaded = reload(), found
        if page and page != found:
            raise HTTPException(409, "A new run replaced the one on this page. The page reloads.")

    @app.exception_handler(HTTPException)
    async def stale(_: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": error.detail, "reload": error.status_code == 409}, error.status_code)

    @app.exception_handler(OSError)
    async def unwritable(_: Request, error: OSError) -> Response:
        reason = (error.strerror or "I/O error").lower()
        return JSONResponse({"error": f"{error.filename or 'disk'}: {reason}", "retry": True}, 507)

    routes = APIRouter(prefix=f"/{token}", dependencies=[Depends(check_run)])
    _add_images(routes, lambda: review)

    @routes.get("/")
    async def page() -> FileResponse:
        return FileResponse(PAGES / "index.html")

    @routes.get("/api/run")
    def run() -> dict[str, Any]:
        """Return the run and the decisions so far."""
        table = review.cases
        return {
            "run": loaded,
            "classes": list(review.classes),
            "questions": QUESTIONS,
            "cases": table[["question", "image", "other", "why"]].values.tolist(),
            "label": review.decisions["label"].tolist(),
            "kept": review.decisions["kept"].tolist(),
            "split": review.split.tolist(),
            "own": [None if np.isnan(value) else round(float(value), 4) for value in review.held_out.own],
            "who": review.who,
            **review.answers(),
        }

    @routes.get("/api/answers")
    def current() -> dict[str, Any]:
        return review.answers()

    @routes.get("/api/image/{image}")
    def one(image: int) -> dict[str, Any]:
        """Return the history of one image and its nearest images."""
        _check_image(review, image)
        lines = [(line[:9].strip(), line[9:]) for line in review.explain(image).splitlines()]
        gaps = np.square(review.points - review.points[image]).sum(axis=1)
        gaps[review.index["hash"].to_numpy() == review.index["hash"].iat[image]] = np.inf
        near = np.argsort(gaps)[:NEIGHBOURS]
        source = str(review.index["source"].iat[image])
        return {"source": source, "lines": lines, "neighbours": near[np.isfinite(gaps[near])].tolist()}

    @routes.post("/api/rule")
    def say(said: Ruling) -> dict[str, Any]:
        return {"changed": rule(review, said).model_dump(), **review.answers()}

    @routes.post("/api/undo")
    def undo(done: Changed) -> dict[str, Any]:
        """Undo a decision and restore the rows that it replaced."""
        change(review.folder / done.file, FILES[done.file], review.index, done.replaced, done.added)
        return review.answers()

    app.include_router(routes)
    app.mount(f"/{token}/assets", StaticFiles(directory=PAGES), name="assets")
    return app


def _check_image(review: Review, image: int) -> None:
    if not 0 <= image < len(review.images):
        raise LeafError(f"image {image} does not exist. Use 0 to {len(review.images) - 1}")


def _add_images(routes: APIRouter, current: Callable[[], Review]) -> None:
    @routes.get("/picture/{image}.png")
    def picture(image: int, over: Annotated[int, Query(ge=-1)] = -1) -> Response:
        """Return the ingested image, aligned to image `over` if both are crops of one photo."""
        review = current()
        _check_image(review, image)
        pixels = np.asarray(review.images[image])
        if over >= 0:
            _check_image(review, over)
            ground = np.asarray(review.images[over])
            found = align(ground, pixels)
            pixels = laid_over(pixels, found.matrix) if found else pixels
        encoded = cv2.imencode(".png", np.clip(np.rint(pixels), 0, 255).astype(np.uint8)[..., ::-1])[1]
        return Response(encoded.tobytes(), media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})

    @routes.get("/original/{image}.jpg")
    def original(image: int) -> Response:
        """Return the original file as JPEG; 404 without one."""
        review = current()
        _check_image(review, image)
        found = review.original(image)
        if found is None:
            return JSONResponse({"error": "the data set has no original file"}, 404)
        encoded = cv2.imencode(".jpg", found[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
        return Response(encoded.tobytes(), media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})
