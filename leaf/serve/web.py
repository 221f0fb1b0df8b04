"""The web page that predicts photographs, and the JSON API behind it."""

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
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
from leaf.ingest.sandbox import end_decoders
from leaf.models.gradcam import heatmap_png
from leaf.serve.batcher import Batcher, QueueFullError
from leaf.serve.classifier import Prediction, prepare
from leaf.serve.server import MAX_UPLOAD, SMALL_UPLOAD, TOO_LARGE, TOO_MANY, SecurityMiddleware

if TYPE_CHECKING:
    from leaf.serve.classifier import Classifier

PAGES = Path(__file__).with_name("page")
SMALL_DECODERS, LARGE_DECODERS = 2, 1  # photographs decoded at once; a small one never waits for a large one

Result = TypeVar("Result")
Photograph = Annotated[UploadFile, File(description="a JPEG, PNG, WebP, BMP, TIFF, GIF, JPEG 2000, AVIF or HEIC file")]


class Health(BaseModel):
    """That the server answers, and with which model."""

    status: str
    model_sha256: str
    classes: tuple[str, ...]
    image_size: int
    backbone: str
    test_accuracy: float | None


class Problem(BaseModel):
    """Why there is no answer, in one line."""

    error: str


_PROBLEMS: dict[int | str, dict[str, object]] = {
    400: {"model": Problem, "description": "not a form that can be read"},
    413: {"model": Problem, "description": f"larger than {MAX_UPLOAD // 2**20} MiB"},
    422: {"model": Problem, "description": "no photograph, or a file that gives no image"},
    403: {"model": Problem, "description": "sent by a page of another site"},
    408: {"model": Problem, "description": "an upload that does not come to its end"},
    503: {"model": Problem, "description": "too many images are waiting, or the server stops"},
    507: {"model": Problem, "description": "the server's disk is full"},
}


def create_app(classifier: "Classifier", hosts: frozenset[str] = frozenset()) -> FastAPI:
    """Make the web application for a loaded model.

    Args:
        classifier: makes the predictions.
        hosts: host names that the server answers to; any if empty.
    """
    small_decoders = ThreadPoolExecutor(SMALL_DECODERS, thread_name_prefix="decode")
    large_decoders = ThreadPoolExecutor(LARGE_DECODERS, thread_name_prefix="decode-large")

    def predict_batch(items: Sequence[tuple[str, np.ndarray]]) -> list[Prediction]:
        return classifier.predict_prepared([name for name, _ in items], np.stack([prepared for _, prepared in items]))

    batcher = Batcher(predict_batch)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        for decoders in (small_decoders, large_decoders):
            decoders.shutdown(wait=False, cancel_futures=True)
        end_decoders()
        batcher.stop()

    # FastAPI's own pages load scripts from a content network; page/docs.html does not.
    app = FastAPI(title="leaf", version=__version__, docs_url=None, redoc_url=None, lifespan=life)
    app.add_middleware(SecurityMiddleware, hosts=hosts)
    app.mount("/assets", StaticFiles(directory=PAGES), name="assets")
    _add_error_pages(app)

    async def pixels(photograph: UploadFile, name: str) -> np.ndarray:
        content = await photograph.read()
        if len(content) > MAX_UPLOAD:
            raise HTTPException(413, TOO_LARGE)
        decoders = large_decoders if len(content) > SMALL_UPLOAD else small_decoders
        decode = partial(prepare, content, classifier.image_size, name, classifier.fit)
        return await asyncio.get_running_loop().run_in_executor(decoders, decode)

    def file_name(photograph: UploadFile) -> str:
        name = photograph.filename or "photograph"
        try:
            name.encode()
        except UnicodeEncodeError:
            raise HTTPException(400, "image: the file's name is no text in UTF-8") from None
        return name

    async def or_503(result: Awaitable[Result]) -> Result:
        try:
            return await result
        except QueueFullError:
            raise HTTPException(503, TOO_MANY, {"Retry-After": "5"}) from None
        except LeafError as error:  # of the network: the photograph was read
            raise HTTPException(500, str(error)) from None

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGES / "index.html")

    @app.api_route("/docs", methods=["GET", "HEAD"], include_in_schema=False)
    async def documentation() -> FileResponse:
        return FileResponse(PAGES / "docs.html")

    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health() -> Health:
        """Say that the server answers, and with which model."""
        return Health(
            status="ok",
            model_sha256=classifier.sha256,
            classes=classifier.classes,
            backbone=classifier.backbone,
            test_accuracy=classifier.test_accuracy,
            image_size=classifier.image_size,
        )

    @app.post("/api/predict", responses=_PROBLEMS)
    async def predict(image: Photograph) -> Prediction:
        """Predict one photograph."""
        name = file_name(image)
        prepared = await pixels(image, name)
        return await or_503(batcher.predict((name, prepared)))

    @app.post(
        "/api/heatmap",
        response_class=Response,
        responses={
            200: {"content": {"image/png": {}}, "description": "the photograph under its heat map"},
            **_PROBLEMS,
        },
    )
    async def heatmap(image: Photograph) -> Response:
        """Draw where in one photograph the network saw the class that it predicts."""
        prepared = await pixels(image, file_name(image))
        strength = await or_503(batcher.run_when_idle(lambda: classifier.heatmaps(prepared[None])))
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
        if isinstance(error.__cause__, OSError):  # FastAPI calls it a form that cannot be parsed
            full = error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT)
            detail = f"the server cannot keep the upload: {(error.__cause__.strerror or 'no reason').lower()}"
            return JSONResponse({"error": detail}, 507 if full else 500)
        if "text/html" in request.headers.get("accept", ""):
            page = (PAGES / "error.html").read_text(encoding="utf-8")
            return HTMLResponse(page.replace("STATUS", str(error.status_code)), error.status_code, error.headers)
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
