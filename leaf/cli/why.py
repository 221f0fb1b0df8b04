"""Examples: `leaf why 58`   `leaf why healthy/0017.jpg`"""

from typing import Annotated

import typer

from leaf.errors import printable
from leaf.why import explain


def command(image: Annotated[str, typer.Argument(help="image number or file name")]) -> None:
    """Explain every decision about an image."""
    typer.echo("\n".join(map(printable, explain(image).splitlines())))
