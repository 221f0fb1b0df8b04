"""Examples: `leaf review`   `leaf review fold-0 fold-1 fold-2`   `leaf review --unlabelled`"""

import secrets
from functools import partial
from typing import Annotated

import typer

from leaf.cli.options import NoAccessLog, Port, Runs
from leaf.errors import LeafError
from leaf.review.app import create_app
from leaf.review.labelling import create_labelling_app
from leaf.review.session import load_labelling, load_review
from leaf.serve.server import LOOPBACK, open_port, run


def command(
    revisions: Runs = None,
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="label new images, starting with the most useful ones")
    ] = False,
    port: Port = 0,
    quiet: NoAccessLog = False,
) -> None:
    """Open a page to review doubtful images or label new ones with the keyboard.

    Decisions are written to data/overrides.csv and data/reviewed.csv, and labels to data/labels.csv.
    """
    if unlabelled and revisions:
        raise LeafError("review: --unlabelled uses the model in the workspace. Remove the run names.")
    token, host = secrets.token_urlsafe(16), "127.0.0.1"
    if unlabelled:
        application = create_labelling_app(load_labelling(), token, LOOPBACK, load_labelling)
    else:
        load = partial(load_review, revisions or ["workspace"])
        application = create_app(load(), token, LOOPBACK, load)
    run(application, open_port(host, port), host, f"/{token}/", quiet)
