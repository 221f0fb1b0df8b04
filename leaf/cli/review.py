"""`leaf review`."""

import secrets
from functools import partial
from typing import Annotated

import typer

from leaf.review.app import create_app
from leaf.review.session import load_review
from leaf.serve.server import LOOPBACK, open_port, run

app = typer.Typer()


@app.command(epilog="Examples: `leaf review`   `leaf review fold-0 fold-1 fold-2`")
def command(
    revisions: Annotated[list[str] | None, typer.Argument(help="runs, or all folds of one run  [workspace]")] = None,
    port: Annotated[int, typer.Option(help="0 selects a free port", min=0, max=65535)] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no access log")] = False,
) -> None:
    """Open a page for reviewing doubtful images by keyboard; decisions are written to data/overrides.csv."""
    load = partial(load_review, revisions or ["workspace"])
    token = secrets.token_urlsafe(16)
    host = "127.0.0.1"
    run(create_app(load(), token, LOOPBACK, load), open_port(host, port), host, f"/{token}/", quiet)
