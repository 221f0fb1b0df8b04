"""The command `leaf init`."""

from pathlib import Path
from typing import Annotated

import typer

EPILOG = "Examples: `leaf init`   `leaf init flowers --dataset /home/me/flowers`"


def command(
    folder: Annotated[Path, typer.Argument(help="a new or existing folder", metavar="DIR")] = Path(),
    dataset: Annotated[
        Path | None, typer.Option(help="a folder of images or an .npz file (default: the synthetic demo data set)")
    ] = None,
) -> None:
    """Create a DVC project for your own images in a git repository."""
    from leaf.project.init import init_project

    for line in init_project(folder, dataset):
        typer.echo(line)
