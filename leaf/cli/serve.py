"""`leaf serve`."""

import os
import sys
from typing import Annotated

import typer

from leaf.serve.classifier import MODEL
from leaf.serve.web import serve

app = typer.Typer()


@app.command(epilog="Example: `leaf serve --port 8000`, then open http://127.0.0.1:8000")
def command(
    model: Annotated[str, typer.Option(help=".onnx or .keras file")] = MODEL,
    host: Annotated[
        str, typer.Option(help="address to listen on; 0.0.0.0 accepts connections from other machines")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 selects a free port", min=0, max=65535)] = 8000,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="turn off the access log")] = False,
) -> None:
    """Serve a web page and a JSON API (/docs) for predictions."""
    serve(model, host, port, quiet)
    sys.stdout.flush()
    os._exit(0)  # do not wait for abandoned decoding or for TensorFlow to unload
