"""`leaf serve`: load the model, open the port, stop when asked."""

import os
import sys
from typing import Annotated

import numpy as np
import typer

from leaf.serve.batcher import MAX_BATCH
from leaf.serve.classifier import MODEL, Classifier, load
from leaf.serve.server import LOOPBACK, is_loopback, listen, open_port, shown
from leaf.serve.web import create_app

app = typer.Typer()


def serve(model: str, host: str, port: int, quiet: bool) -> None:
    """Serve the page and the API until SIGINT or SIGTERM; then finish what runs and return.

    Args:
        model: an `.onnx` file, or a `.keras` file.
        host: address to listen on.
        port: 0 for a free one; the first line on standard output says which.
        quiet: no line for each request.
    """
    classifier = load(model)
    listening = open_port(host, port)
    _warm_up(classifier)
    hosts = LOOPBACK | {shown(host).lower()} if is_loopback(host) else frozenset()
    listen(create_app(classifier, hosts), listening, host, quiet=quiet)


def _warm_up(classifier: Classifier) -> None:
    """Compile for every size of a batch, so that the first request does not wait for it."""
    count = 1
    while count <= MAX_BATCH:
        blank = np.zeros((count, classifier.image_size, classifier.image_size, 3), np.uint8)
        classifier.predict_prepared(["blank"] * count, blank)
        count *= 2


@app.command(epilog="Example: `leaf serve --port 8000`, then open http://127.0.0.1:8000")
def command(
    model: Annotated[str, typer.Option(help="an .onnx file, or a .keras file")] = MODEL,
    host: Annotated[str, typer.Option(help="address to listen on; 0.0.0.0 lets others in")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one", min=0, max=65535)] = 8000,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no line for each request")] = False,
) -> None:
    """Open a page where photographs are dropped and predicted, and a JSON API beside it (/docs)."""
    serve(model, host, port, quiet)
    sys.stdout.flush()
    os._exit(0)  # at once: Python would wait for pictures that are being decoded for nobody, and unload TensorFlow
