"""The page where photographs are dropped and judged, and the JSON API that it asks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import numpy as np
from fastapi import FastAPI, File, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from leaf import __version__
from leaf.errors import LeafError
from leaf.report.photos import heatmap_png
from leaf.serving.batcher import BusyError, Turns
from leaf.serving.classifier import Prediction
from leaf.serving.middleware import LARGEST, TOO_LARGE, Guard
from leaf.serving.pixels import prepare

if TYPE_CHECKING:
    from leaf.serving.classifier import Classifier

PAGES = Path(__file__).with_name("page")
DECODERS = 2  # photographs decoded at once; a large one takes 300 MB

Answer = TypeVar("Answer")
Photograph = Annotated[UploadFile, File(description="a JPEG, PNG, WebP, BMP or TIFF file")]


class Health(BaseModel):
    """That the server answers, and with which model."""

    status: str
    model_sha256: str
    classes: tuple[str, ...]
    image_size: int


class Problem(BaseModel):
    """Why there is no answer, in one line."""

    error: str


_PROBLEMS: dict[int | str, dict[str, object]] = {
    400: {"model": Problem, "description": "not a form that can be read"},
    413: {"model": Problem, "description": f"larger than {LARGEST // 2**20} MiB"},
    422: {"model": Problem, "description": "no photograph, or a file that gives no image"},
    503: {"model": Problem, "description": "too many images wait already"},
}


def create_app(classifier: "Classifier", hosts: frozenset[str] = frozenset()) -> FastAPI:
    """Make the web application around a loaded model.

    Args:
        classifier: what judges.
        hosts: names that the server may be called by; any if empty.
    """
    decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")

    def judge(asked: Sequence[tuple[str, np.ndarray]]) -> list[Prediction]:
        return classifier.judge([name for name, _ in asked], np.stack([prepared for _, prepared in asked]))

    turns = Turns(judge)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        decoders.shutdown()
        turns.stop()

    # FastAPI's own pages load scripts from a content network; page/docs.html does not.
    app = FastAPI(title="leaf", version=__version__, docs_url=None, redoc_url=None, lifespan=life)
    app.add_middleware(Guard, hosts=hosts)
    app.mount("/assets", StaticFiles(directory=PAGES), name="assets")
    _add_error_pages(app)

    async def pixels(photograph: UploadFile, name: str) -> np.ndarray:
        content = await photograph.read()
        if len(content) > LARGEST:
            raise HTTPException(413, TOO_LARGE)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(decoders, lambda: prepare(content, classifier.image_size, name))

    async def unless_busy(turn: Awaitable[Answer]) -> Answer:
        try:
            return await turn
        except BusyError:
            raise HTTPException(503, "too many images wait already; try again", {"Retry-After": "5"}) from None

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGES / "index.html")

    @app.get("/docs", include_in_schema=False)
    async def documentation() -> FileResponse:
        return FileResponse(PAGES / "docs.html")

    @app.get("/health")
    async def health() -> Health:
        """Say that the server answers, and with which model."""
        return Health(
            status="ok",
            model_sha256=classifier.sha256,
            classes=classifier.classes,
            image_size=classifier.image_size,
        )

    @app.post("/api/predict", responses=_PROBLEMS)
    async def predict(image: Photograph) -> Prediction:
        """Judge one photograph."""
        name = image.filename or "photograph"
        prepared = await pixels(image, name)
        return await unless_busy(turns.answer((name, prepared)))

    @app.post(
        "/api/heatmap",
        response_class=Response,
        responses={
            200: {"content": {"image/png": {}}, "description": "the photograph under its heat map"},
            **_PROBLEMS,
        },
    )
    async def heatmap(image: Photograph) -> Response:
        """Draw where in one photograph the network saw the class it gives."""
        prepared = await pixels(image, image.filename or "photograph")
        strength = await unless_busy(turns.draw(lambda: classifier.heatmaps(prepared[None])))
        return Response(heatmap_png(prepared, strength[0]), media_type="image/png")

    return app


def _add_error_pages(app: FastAPI) -> None:
    """Give every error as `{"error": "one line"}`, or as a page where a browser asks for one."""

    @app.exception_handler(LeafError)
    async def refused(_: Request, error: LeafError) -> Response:
        return JSONResponse({"error": str(error)}, 422)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "body"
        return JSONResponse({"error": f"{where}: {first['msg']}"}, 422)

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            page = (PAGES / "error.html").read_text(encoding="utf-8")
            return HTMLResponse(page.replace("STATUS", str(error.status_code)), error.status_code, error.headers)
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
