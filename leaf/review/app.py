"""The review page and its API, served on the loopback interface at a path with a secret token."""

import csv
import hashlib
import subprocess
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import pandas as pd
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from leaf import params
from leaf.clean.decisions import KINDS, PAIRED, TEXT, read_overrides
from leaf.clean.same_photo import align, laid_over
from leaf.errors import LeafError
from leaf.review.decision_files import (
    FILES,
    OVERRIDES,
    REVIEWED,
    SEEN,
    File,
    Row,
    change,
    read_rows,
    resolved,
    summary,
)
from leaf.review.queue import QUESTIONS, answers
from leaf.serve.server import add_error_handlers, add_security
from leaf.split.pins import join_pins, pin_split
from leaf.split.stratified_split import PINNED

PAGES = Path(__file__).with_name("page")
NEIGHBORS = 6
REASON = (
    "test image: a change based on the model's prediction biases the test score. Give a reason that is visible in "
    "the image."
)


@dataclass(frozen=True)
class Review:
    """A run under review, with N images."""

    folder: Path  # project folder
    classes: Sequence[str]
    images: np.ndarray  # uint8 or float32 in 0..255, (N, S, S, 3)
    index: pd.DataFrame  # data/ingested/index.csv
    decisions: pd.DataFrame  # data/cleaned/decisions.csv
    split: np.ndarray  # str (N,), "" for images in no split
    cases: pd.DataFrame  # from `leaf.review.queue.cases`
    own: np.ndarray  # float64 (N,), held-out probability of the label, or nan
    points: np.ndarray  # float32 (N, D), descriptors for finding the nearest images
    explain: Callable[[int], str]  # maps an image number to the output of `leaf why`
    original: Callable[[int], np.ndarray | None]  # maps an image number to its original, uint8 (H, W, 3)
    who: str  # author of the decisions
    run: str  # run that proposed the cases

    def answers(self) -> dict[str, Any]:
        """Return the decision on each case, a summary, and the decisions that match no image or class."""
        overrides = read_rows(self.folder, OVERRIDES)
        decided = read_overrides(pd.DataFrame(overrides, columns=list(TEXT)), self.index, self.classes)
        reviewed = resolved(read_rows(self.folder, REVIEWED), self.index)
        given = answers(self.cases, self.index["hash"].tolist(), decided, self.classes, reviewed)
        unused = [overrides[int(line.split("line ")[1].split(":")[0]) - 2] for line in decided.missed]
        return {
            "answers": given,
            "summary": summary(overrides, committed(self.folder)),
            "unused": [row["file"] or row["hash"] for row in unused],
        }

    def tested(self, images: list[int]) -> bool:
        """Return whether one of `images`, or an exact copy of one, is in the test split."""
        hashes = self.index["hash"]
        return bool(hashes[self.split == "test"].isin(hashes[images]).any())

    def pin(self, decision: "Decision") -> str:
        """Pin the split at the first decision, so that decisions do not move other images to a different split.

        Return the message to show, or "" if nothing was pinned.
        """
        pinned = self.folder / PINNED
        choices = params.load(self.folder / params.PARAMS_FILE)
        if not (self.split != "").any() or choices.folds or choices.grouping == "none":
            return ""
        note = ""
        if not pinned.exists() or len(pinned.read_text(encoding="utf-8").split()) < 2:
            note = pin_split(self.folder)
        if decision.decision == "group":
            groups = self.decisions["group"]
            members = groups.isin(groups[decision.grouped()])
            note += join_pins(self.folder, self.index["file_hash"][members].tolist())
        return note


Cell = Annotated[str, StringConstraints(max_length=2000)]
Verdict = Literal["keep", "drop", "relabel", "group", "apart", "seen", "unsure"]
Number = Annotated[int, Field(ge=0)]


class Decision(BaseModel):
    """A decision on each of `images`; `group` and `apart` pair the first image with each of the others."""

    model_config = ConfigDict(extra="forbid")
    images: list[Number] = Field(min_length=1, max_length=100_000)
    decision: Verdict
    label: str = Field("", max_length=500)
    question: str = Field("", max_length=50)
    other: int = -1
    why: str = Field("", max_length=500)

    def grouped(self) -> list[int]:
        """Return the images that a `group` decision joins: `images` and `other`, if set."""
        return [*self.images, *([self.other] if self.other >= 0 else [])]


class Changed(BaseModel):
    """The rows that a decision added and replaced, for undoing the decision."""

    model_config = ConfigDict(extra="forbid")
    file: File
    added: list[dict[str, Cell]] = Field(max_length=100_000)
    replaced: list[dict[str, Cell]] = Field(max_length=100_000)

    @model_validator(mode="after")
    def check_rows(self) -> "Changed":
        required = {OVERRIDES: ("hash", "ruling", KINDS), REVIEWED: ("hash", "verdict", SEEN)}
        name, column, valid = required.get(self.file, ("file_hash", "", ()))
        for row in [*self.added, *self.replaced]:
            if set(FILES[self.file]) - set(row) or not row[name] or (column and row[column].strip() not in valid):
                values = f"; {column} is one of {', '.join(valid)}" if column else ""
                raise ValueError(f"a row requires {', '.join(FILES[self.file])}{values}")
        return self


def committed(folder: Path) -> list[Row]:
    """Return the rows of data/overrides.csv in the last commit."""
    shown = subprocess.run(["git", "show", f"HEAD:./{OVERRIDES}"], cwd=folder, capture_output=True, text=True)
    rows = csv.DictReader(shown.stdout.splitlines())
    return [{name: row.get(name) or "" for name in FILES[OVERRIDES]} for row in rows]


def decide(review: Review, decision: Decision) -> Changed:
    """Save a decision and return the changed rows.

    Raises LeafError for an unknown image or label, and HTTPException for a missing reason.
    """
    # unlike the pixel hash, file_hash does not depend on image_size
    hashes, sources = review.index["file_hash"].to_numpy(), review.index["source"].astype(str).to_numpy()
    check_image(review.images, max(*decision.images, decision.other))
    kind, paired = decision.decision, decision.decision in PAIRED
    images = decision.grouped() if paired else decision.images
    files = dict(zip(hashes[images], sources[images], strict=True))
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    common = {"who": review.who, "why": " ".join(decision.why.split()), "date": now, "run": review.run, "other": ""}
    file: File = REVIEWED if kind in SEEN else OVERRIDES
    if file == REVIEWED:
        common |= {"verdict": kind, "question": decision.question}
        common["other"] = hashes[decision.other] if decision.other >= 0 else ""
    else:
        common |= {"ruling": kind, "label": decision.label}
        if (kind == "relabel") != (decision.label in review.classes):
            valid = f"Use one of {', '.join(review.classes)}" if kind == "relabel" else "Only relabel accepts a label"
            raise LeafError(f"label: {decision.label!r} is not valid for {kind}. {valid}.")
        if not (paired or common["why"]) and review.tested(images):
            raise HTTPException(422, {"error": REASON, "reason": True})
    rows = [{"hash": each, "file": name} for each, name in files.items()]
    if paired:
        first, *others = rows
        if not others:
            raise LeafError(f"{kind}: requires at least two images. Select another image.")
        rows = [first | {"other": row["hash"], "file": f"{first['file']} | {row['file']}"} for row in others]
    added = [{name: (common | row)[name] for name in FILES[file]} for row in rows]
    return Changed(file=file, added=added, replaced=change(review.folder, file, review.index, added))


_RUN_FILES = (
    *("data/ingested/index.csv", "data/ingested/unlabelled.csv", "data/cleaned/decisions.csv"),
    *("data/split/splits.csv", "models/run.json"),
)


def run_identity(folder: Path) -> str:
    """Hash the sizes and modification times of the run's files, to detect a new run."""
    found = [path.stat() if path.exists() else None for path in (folder / name for name in _RUN_FILES)]
    content = str([each and (each.st_size, each.st_mtime_ns) for each in found])
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


class Loaded:
    """A `Review` or `Labelling` that is reloaded when the run's files change, unless `reload` is None."""

    def __init__(self, value: Any, reload: Callable[[], Any] | None) -> None:
        self.value = value
        self.run = run_identity(value.folder)
        self._reload = reload
        self._lock = threading.Lock()

    def check(self, page: Annotated[str, Query(alias="run")] = "") -> None:
        """Reload the run if its files changed. Reject requests from a page that shows an earlier run."""
        with self._lock:
            found = run_identity(self.value.folder)
            if found != self.run and self._reload is not None:
                self.value, self.run = self._reload(), found
        if page and page != found:
            message = "A new run has replaced the run on this page. The page will reload."
            raise HTTPException(409, {"error": message, "reload": True})


def serve_pages(title: str, html: str, token: str, hosts: Collection[str], loaded: Loaded) -> tuple[FastAPI, APIRouter]:
    """Create an application that serves a page, its assets and images under `/token/`. Return it and its router."""
    app = FastAPI(title=title, docs_url=None, redoc_url=None, openapi_url=None)
    add_security(app, hosts)
    add_error_handlers(app)

    @app.exception_handler(HTTPException)
    async def failed(_: Request, error: HTTPException) -> Response:
        content = error.detail if isinstance(error.detail, dict) else {"error": error.detail}
        return JSONResponse(content, error.status_code)

    @app.exception_handler(OSError)
    async def unwritable(_: Request, error: OSError) -> Response:
        reason = (error.strerror or "I/O error").lower()
        return JSONResponse({"error": f"{error.filename or 'disk'}: {reason}", "retry": True}, 507)

    routes = APIRouter(prefix=f"/{token}", dependencies=[Depends(loaded.check)])

    @routes.get("/")
    async def page() -> FileResponse:
        return FileResponse(PAGES / html)

    @routes.get("/image/{image}.png")
    def image(image: int, over: Annotated[int, Query(ge=-1)] = -1) -> Response:
        """Return the ingested image, aligned to image `over` if both are crops of one photo."""
        images = loaded.value.images
        check_image(images, image)
        pixels = np.asarray(images[image])
        if over >= 0:
            check_image(images, over)
            found = align(np.asarray(images[over]), pixels)
            pixels = laid_over(pixels, found[0]) if found else pixels
        return _encoded(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), "png")

    @routes.get("/original/{image}.jpg")
    def original(image: int) -> Response:
        """Return the original image as JPEG, or status 404 if there is no file."""
        check_image(loaded.value.images, image)
        found = loaded.value.original(image)
        if found is None:
            return JSONResponse({"error": f"image {image}: the data set has no original file"}, 404)
        return _encoded(found, "jpeg")

    app.mount(f"/{token}/assets", StaticFiles(directory=PAGES), name="assets")
    return app, routes


def _encoded(pixels: np.ndarray, kind: str) -> Response:
    content = cv2.imencode(f".{kind}", pixels[..., ::-1])[1].tobytes()
    return Response(content, media_type=f"image/{kind}", headers={"Cache-Control": "private, max-age=3600"})


def check_image(images: np.ndarray, image: int) -> None:
    """Raise LeafError for an image number out of range."""
    if not 0 <= image < len(images):
        raise LeafError(f"image {image} does not exist. Use 0 to {len(images) - 1}.")


def create_app(
    review: Review, token: str, hosts: Collection[str] = ("*",), reload: Callable[[], Review] | None = None
) -> FastAPI:
    """Create the review application under `/token/`; `hosts` are the accepted Host headers.

    `reload` loads the run again; it is called when the run's files have changed.
    """
    loaded = Loaded(review, reload)
    app, routes = serve_pages("leaf review", "index.html", token, hosts, loaded)

    @routes.get("/api/run")
    def run() -> dict[str, Any]:
        """Return the run and the decisions so far."""
        review = loaded.value
        return {
            "run": loaded.run,
            "classes": list(review.classes),
            "questions": QUESTIONS,
            "cases": review.cases[["question", "image", "other", "why"]].values.tolist(),
            "file": review.index["source"].astype(str).tolist(),
            "label": review.decisions["label"].tolist(),
            "kept": review.decisions["kept"].tolist(),
            "split": review.split.tolist(),
            "own": [None if np.isnan(value) else round(float(value), 4) for value in review.own],
            **review.answers(),
        }

    @routes.get("/api/answers")
    def current() -> dict[str, Any]:
        return loaded.value.answers()

    @routes.get("/api/image/{image}")
    def one(image: int) -> dict[str, Any]:
        """Return the history of one image and its nearest images."""
        review = loaded.value
        check_image(review.images, image)
        lines = [(line[:9].strip(), line[9:]) for line in review.explain(image).splitlines()]
        gaps = np.square(review.points - review.points[image]).sum(axis=1)
        gaps[review.index["hash"].to_numpy() == review.index["hash"].iat[image]] = np.inf
        near = np.argsort(gaps)[:NEIGHBORS]
        return {"lines": lines, "neighbors": near[np.isfinite(gaps[near])].tolist()}

    @routes.post("/api/decide")
    def make(decision: Decision) -> dict[str, Any]:
        review = loaded.value
        changed = decide(review, decision)
        note = review.pin(decision) if changed.file == OVERRIDES else ""
        return {"changed": changed.model_dump(), "note": note, **review.answers()}

    @routes.post("/api/undo")
    def undo(done: Changed) -> dict[str, Any]:
        """Undo a decision and restore the rows that it replaced."""
        review = loaded.value
        change(review.folder, done.file, review.index, done.replaced, done.added)
        return review.answers()

    app.include_router(routes)
    return app
