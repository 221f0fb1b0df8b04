"""The web page and JSON API for predictions."""

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from fastapi import Depends, FastAPI, File, Request, Response, UploadFile
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from leaf import __version__
from leaf.errors import LeafError
from leaf.ingest.sandbox import end_decoders
from leaf.models.gradcam import heatmap_png
from leaf.serve.batcher import MAX_BATCH, Batcher, QueueFullError
from leaf.serve.classifier import Classifier, Prediction, load, prepare
from leaf.serve.server import (
    BUSY,
    MAX_UPLOAD,
    SMALL_UPLOAD,
    TOO_LARGE,
    add_error_handlers,
    add_security,
    allowed_hosts,
    open_port,
    run,
)

PAGES = Path(__file__).with_name("page")
SMALL_DECODERS, LARGE_DECODERS = 2, 1  # threads; a small image never waits for a large one

Result = TypeVar("Result")
ImageFile = Annotated[UploadFile, File(description="a JPEG, PNG, WebP, BMP, TIFF, GIF, JPEG 2000, AVIF or HEIC file")]


class Health(BaseModel):
    """The status of the server and its model."""

    status: str
    model_sha256: str
    classes: tuple[str, ...]
    image_size: int
    backbone: str
    test_accuracy: float | None


class Problem(BaseModel):
    """A one-line error."""

    error: str


_PROBLEMS: dict[int | str, dict[str, object]] = {
    400: {"model": Problem, "description": "malformed form data"},
    413: {"model": Problem, "description": f"upload larger than {MAX_UPLOAD // 2**20} MiB"},
    422: {"model": Problem, "description": "no image, or a file that cannot be decoded"},
    403: {"model": Problem, "description": "cross-site request"},
    408: {"model": Problem, "description": "upload timed out"},
    503: {"model": Problem, "description": "server busy or stopping; retry"},
    507: {"model": Problem, "description": "no space left on the server's disk"},
}


def create_app(classifier: Classifier, hosts: Collection[str] = ("*",)) -> FastAPI:
    """Create the web application for a loaded model; `hosts` are the accepted Host headers."""
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

    # FastAPI's built-in docs load scripts from a CDN; page/docs.html does not.
    app = FastAPI(title="leaf", version=__version__, docs_url=None, redoc_url=None, lifespan=life)
    add_security(app, hosts)
    app.mount("/assets", StaticFiles(directory=PAGES), name="assets")
    add_error_handlers(app)

    app.exception_handler(HTTPException)(_error_response)

    async def one_image(request: Request) -> None:
        if (count := len((await request.form()).getlist("image"))) > 1:
            raise HTTPException(422, f"image: {count} files. Send one image per request.")

    async def decoded(upload: UploadFile) -> tuple[str, np.ndarray]:
        """Return the file's name and its image, resized to the model's input."""
        name = upload.filename or "image"
        try:
            name.encode()
        except UnicodeEncodeError:
            raise HTTPException(400, "image: the file name is not valid UTF-8") from None
        content = await upload.read()
        if len(content) > MAX_UPLOAD:
            raise HTTPException(413, TOO_LARGE)
        decoders = large_decoders if len(content) > SMALL_UPLOAD else small_decoders
        decode = partial(prepare, content, classifier.image_size, name, classifier.fit)
        return name, await asyncio.get_running_loop().run_in_executor(decoders, decode)

    async def or_503(result: Awaitable[Result]) -> Result:
        try:
            return await result
        except QueueFullError:
            raise HTTPException(503, BUSY, {"Retry-After": "5"}) from None
        except LeafError as error:  # caused by the model, not by the upload
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
        """Return the status of the server and its model."""
        return Health(
            status="ok",
            model_sha256=classifier.sha256,
            classes=classifier.classes,
            backbone=classifier.backbone,
            test_accuracy=classifier.test_accuracy,
            image_size=classifier.image_size,
        )

    @app.post("/api/predict", responses=_PROBLEMS, dependencies=[Depends(one_image)])
    async def predict(image: ImageFile) -> Prediction:
        """Predict one image."""
        return await or_503(batcher.predict(await decoded(image)))

    @app.post(
        "/api/heatmap",
        response_class=Response,
        dependencies=[Depends(one_image)],
        responses={200: {"content": {"image/png": {}}, "description": "the image with its heatmap"}, **_PROBLEMS},
    )
    async def heatmap(image: ImageFile) -> Response:
        """Draw a Grad-CAM heatmap of the predicted class over the image."""
        _, prepared = await decoded(image)
        strength = await or_503(batcher.run_when_idle(lambda: classifier.heatmaps(prepared[None])))
        return Response(heatmap_png(prepared, strength[0]), media_type="image/png")

    return app


async def _error_response(request: Request, error: HTTPException) -> Response:
    """Return `{"error": "one line"}`, or a page if the client accepts HTML."""
    if isinstance(error.__cause__, OSError):  # for example, a full disk, which FastAPI reports as a malformed form
        full = error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT)
        detail = f"the server cannot store the upload: {(error.__cause__.strerror or 'I/O error').lower()}"
        return JSONResponse({"error": detail}, 507 if full else 500)
    if "text/html" in request.headers.get("accept", ""):
        page = (PAGES / "error.html").read_text(encoding="utf-8").replace("STATUS", str(error.status_code))
        reason = HTTPStatus(error.status_code).phrase
        return HTMLResponse(page.replace("REASON", reason), error.status_code, error.headers)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def serve(model: str, host: str, port: int, quiet: bool) -> None:
    """Serve the page and the API until SIGINT or SIGTERM; port 0 selects a free port."""
    classifier = load(model)
    listening = open_port(host, port)
    for count in (2**power for power in range(MAX_BATCH.bit_length())):  # warm up each batch size
        blank = np.zeros((count, classifier.image_size, classifier.image_size, 3), np.uint8)
        classifier.predict_prepared(["blank"] * count, blank)
    run(create_app(classifier, allowed_hosts(host)), listening, host, quiet=quiet)
