"""Examples: `leaf labels`   `leaf labels fold-0 fold-1 fold-2`"""

from typing import Annotated

import typer

from leaf.cli.options import Runs
from leaf.errors import printable
from leaf.evaluate.label_issues import describe, wrong_labels


def command(
    revisions: Runs = None,
    most: Annotated[int, typer.Option(help="maximum number of images to list", min=1)] = 20,
) -> None:
    """List likely label errors among held-out images (confident learning)."""
    said = describe(wrong_labels(revisions or ["workspace"]), most)
    typer.echo("\n".join(map(printable, said.splitlines())))
