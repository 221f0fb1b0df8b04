"""Example: `leaf serve --port 8000`, then open http://127.0.0.1:8000"""

import os
import sys
from typing import Annotated

import typer

from leaf.cli.options import NoAccessLog, Port
from leaf.serve.classifier import MODEL
from leaf.serve.web import serve


def command(
    model: Annotated[str, typer.Option(help=".onnx or .keras file")] = MODEL,
    host: Annotated[
        str, typer.Option(help="address to listen on; 0.0.0.0 accepts connections from other machines")
    ] = "127.0.0.1",
    port: Port = 8000,
    quiet: NoAccessLog = False,
) -> None:
    """Serve a web page and a JSON API for predictions. The API is documented at /docs."""
    serve(model, host, port, quiet)
    sys.stdout.flush()
    os._exit(0)  # do not wait for decoding threads or for TensorFlow to unload
