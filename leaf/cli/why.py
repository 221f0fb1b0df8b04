"""`leaf why`."""

from typing import Annotated

import typer

from leaf.errors import printable
from leaf.why import explain

app = typer.Typer()


@app.command(epilog="Examples: `leaf why 58`   `leaf why healthy/0017.jpg`")
def command(image: Annotated[str, typer.Argument(help="an image number, or a source name")]) -> None:
    """Follow one image through every table: what happened to it, and why."""
    typer.echo("\n".join(map(printable, explain(image).splitlines())))
