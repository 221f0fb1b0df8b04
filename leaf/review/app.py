"""The page on which a person looks and rules, and what it asks: loopback only, behind a token in the address."""

import csv
import io
import subprocess
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import pandas as pd
from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from leaf.clean.decisions import TEXT, read_rulings
from leaf.clean.same_photo import align, laid_over
from leaf.errors import LeafError
from leaf.review.queue import QUESTIONS, HeldOut, answers
from leaf.review.rulings import FILES, OVERRIDES, REVIEWED, File, Row, change, read_rows, resolved, summary
from leaf.serve.security import add_security

PAGES = Path(__file__).with_name("page")
NEIGHBOURS = 6
REASON = (
    "a test image: a ruling on it because the model says so flatters the score; say what you see in the picture itself"
)


@dataclass(frozen=True)
class Review:
    """A run to be looked at: N images, the cases among them, and where a person's word goes.

    Attributes:
        folder: of the project; data/overrides.csv lies below it.
        classes: their names.
        images: uint8 or float32 0..255 (N, S, S, 3), of data/ingested.
        index: of data/ingested, N rows.
        decisions: of data/cleaned, N rows.
        split: text (N,), "" for an image that is in none.
        cases: from `leaf.review.queue.cases`.
        held_out: what is shown of each image's label.
        points: float32 (N, D), near where two pictures are alike.
        explain: an image's number to what `leaf why` says, lines of text.
        original: an image's number to its picture as large as it came, None where there is no larger one.
        who: signs the rulings.
        run: the run that proposed the cases.
    """

    folder: Path
    classes: Sequence[str]
    images: np.ndarray
    index: pd.DataFrame
    decisions: pd.DataFrame
    split: np.ndarray
    cases: pd.DataFrame
    held_out: HeldOut
    points: np.ndarray
    explain: Callable[[int], str]
    original: Callable[[int], Image.Image | None]
    who: str
    run: str

    def rows(self, name: File) -> list[Row]:
        """The rows of either file as they are now."""
        return read_rows(self.folder / name, FILES[name])

    def answers(self) -> dict[str, Any]:
        """What was said of each case, by anybody, and the line that sums it up."""
        overrides = self.rows(OVERRIDES)
        rulings = read_rulings(pd.DataFrame(overrides, columns=list(TEXT)), self.index, self.classes)
        reviewed = resolved(self.rows(REVIEWED), self.index)
        said = answers(self.cases, self.index["hash"].tolist(), rulings, self.classes, reviewed)
        return {"answers": said, "summary": summary(overrides, committed(self.folder))}

    def tested(self, images: Sequence[int]) -> bool:
        """Whether a copy of one of the `images` is a test image."""
        hashes = self.index["hash"]
        return bool(hashes[self.split == "test"].isin(hashes[list(images)]).any())


class Ruling(BaseModel):
    """What a person says: of each of `images`, or for group and apart of the first of them with each other one."""

    model_config = ConfigDict(extra="forbid")
    images: list[Annotated[int, Field(ge=0)]] = Field(min_length=1, max_length=100_000)
    ruling: Literal["keep", "drop", "relabel", "group", "apart", "seen", "unsure"]
    label: str = ""
    question: str = ""
    other: int = -1
    why: str = Field("", max_length=500)


class Changed(BaseModel):
    """What a ruling did to one file, so that it can be undone: also by a page that was loaded anew."""

    model_config = ConfigDict(extra="forbid")
    file: File
    added: list[dict[str, str]] = Field(max_length=100_000)
    replaced: list[dict[str, str]] = Field(max_length=100_000)


def committed(folder: Path) -> list[Row]:
    """The rows of data/overrides.csv at the last commit, [] where there is none."""
    shown = subprocess.run(["git", "show", f"HEAD:./{OVERRIDES}"], cwd=folder, capture_output=True, text=True)
    lines = shown.stdout.splitlines() if shown.returncode == 0 else []
    return [{name: row.get(name) or "" for name in FILES[OVERRIDES]} for row in csv.DictReader(lines)]


def rule(review: Review, said: Ruling) -> Changed:
    """Write what a person says. Raises LeafError for an image or a label that is not there, or a missing reason."""
    # the hash of the file holds at another image_size, too
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
                raise LeafError(f"{said.ruling}: one picture; valid: two or more")
            rows = [{"hash": first, "other": other} for other in others]
        else:
            if not signed["why"] and review.tested(said.images):
                raise LeafError(REASON)
            rows = [{"hash": picture, "other": ""} for picture in pictures]
        rows = [row | {"ruling": said.ruling, "label": said.label} for row in rows]
        file = OVERRIDES
    added = [{name: (row | signed)[name] for name in FILES[file]} for row in rows]
    return Changed(file=file, added=added, replaced=change(review.folder / file, FILES[file], review.index, added))


def create_app(review: Review, token: str, hosts: Collection[str] = ("*",)) -> FastAPI:
    """Make the web application; all its addresses begin with `token`. `hosts` are names that it may be called by."""
    app = FastAPI(title="leaf review", docs_url=None, redoc_url=None, openapi_url=None)
    add_security(app, hosts)

    @app.exception_handler(LeafError)
    async def refused(_: Request, error: LeafError) -> Response:
        return JSONResponse({"error": str(error), "reason": str(error) == REASON}, 422)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return JSONResponse({"error": f"{'.'.join(map(str, first['loc']))}: {first['msg']}"}, 422)

    routes = APIRouter(prefix=f"/{token}")
    _add_pictures(routes, review)

    @routes.get("/")
    async def page() -> FileResponse:
        return FileResponse(PAGES / "index.html")

    @routes.get("/api/run")
    def run() -> dict[str, Any]:
        """Everything that does not change while the page is open, and what was said so far."""
        table = review.cases
        return {
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
        """What the pipeline did with one image, and the pictures that are most like it."""
        _there(review, image)
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
        """Take a ruling back, and set what it replaced in its place again."""
        change(review.folder / done.file, FILES[done.file], review.index, done.replaced, done.added)
        return review.answers()

    app.include_router(routes)
    app.mount(f"/{token}/assets", StaticFiles(directory=PAGES), name="assets")
    return app


def _there(review: Review, image: int) -> None:
    if not 0 <= image < len(review.images):
        raise LeafError(f"image {image}: valid: 0 to {len(review.images) - 1}")


def _add_pictures(routes: APIRouter, review: Review) -> None:
    @routes.get("/picture/{image}.png")
    def picture(image: int, over: Annotated[int, Query(ge=-1)] = -1) -> Response:
        """An image as the network sees it; laid over image number `over` where it is a crop of the same photograph."""
        _there(review, image)
        pixels = np.asarray(review.images[image])
        if over >= 0:
            _there(review, over)
            ground = np.asarray(review.images[over])
            found = align(ground, pixels)
            pixels = laid_over(pixels, found.matrix) if found else pixels
        encoded = cv2.imencode(".png", np.clip(np.rint(pixels), 0, 255).astype(np.uint8)[..., ::-1])[1]
        return Response(encoded.tobytes(), media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})

    @routes.get("/original/{image}.jpg")
    def original(image: int) -> Response:
        """An image as large as it came; 404 where images.npy has all there is."""
        _there(review, image)
        found = review.original(image)
        if found is None:
            return JSONResponse({"error": "the data set has no larger picture"}, 404)
        file = io.BytesIO()
        found.save(file, "JPEG", quality=92)
        return Response(file.getvalue(), media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})
