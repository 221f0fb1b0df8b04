"""`leaf serve`: load the model, open the port, stop when asked."""

import ipaddress
import os
import signal
import socket
import sys
from typing import Annotated

import numpy as np
import typer
import uvicorn

from leaf.errors import LeafError
from leaf.serving.batcher import MAX_BATCH
from leaf.serving.classifier import Classifier, load
from leaf.serving.connections import LimitedConnection, allow_open_files
from leaf.serving.web import create_app

app = typer.Typer()

GRACE = 3  # seconds that running requests are given on stopping
_HERE = frozenset({"127.0.0.1", "localhost", "[::1]"})


def serve(model: str, host: str, port: int, quiet: bool) -> None:
    """Serve the page and the API until SIGINT or SIGTERM; then finish what runs and return.

    Args:
        model: a `.keras` file.
        host: address to listen on.
        port: 0 for a free one; the first line on standard output says which.
        quiet: no line for each request.
    """
    classifier = load(model)
    listening = _open(host, port)
    _warm_up(classifier)
    shown = f"[{host}]" if ":" in host else host
    app = create_app(classifier, _HERE | {shown.lower()} if _is_loopback(host) else frozenset())
    allow_open_files()
    config = uvicorn.Config(
        app,
        http=LimitedConnection,
        log_level="warning" if quiet else "info",
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    print(f"http://{shown}:{listening.getsockname()[1]}", flush=True)
    # uvicorn raises the signal that stopped it once more when all is done; being asked to stop is no failure.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    uvicorn.Server(config).run(sockets=[listening])


def _warm_up(classifier: Classifier) -> None:
    """Compile for every size of a batch, so that the first request does not wait for it."""
    count = 1
    while count <= MAX_BATCH:
        blank = np.zeros((count, classifier.image_size, classifier.image_size, 3), np.uint8)
        classifier.predict_prepared(["blank"] * count, blank)
        count *= 2


def _open(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except socket.gaierror as error:
        raise LeafError(f"host: {host!r}: {error.strerror}; valid: an address of this machine") from None
    except OSError as error:
        raise LeafError(f"port: {port} on {host}: {(error.strerror or '').lower()}; give another one") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@app.command(epilog="Example: `leaf serve --port 8000`, then open http://127.0.0.1:8000")
def command(
    model: Annotated[str, typer.Option(help="a .keras file")] = "models/model.keras",
    host: Annotated[str, typer.Option(help="address to listen on; 0.0.0.0 lets others in")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one", min=0, max=65535)] = 8000,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no line for each request")] = False,
) -> None:
    """Open a page where photographs are dropped and predicted, and a JSON API beside it (/docs)."""
    serve(model, host, port, quiet)
    sys.stdout.flush()
    os._exit(0)  # at once: Python would wait for pictures that are being decoded for nobody, and unload TensorFlow
