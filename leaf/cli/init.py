"""Examples: `leaf init`   `leaf init flowers --dataset /home/me/flowers`"""

from pathlib import Path
from typing import Annotated

import typer

from leaf.project.init import init_project


def command(
    folder: Annotated[Path, typer.Argument(help="a new or existing folder", metavar="DIR")] = Path(),
    dataset: Annotated[
        Path | None, typer.Option(help="a folder of images or an .npz file (default: the synthetic demo data set)")
    ] = None,
) -> None:
    """Create a DVC project for your own images in a git repository."""
    typer.echo("\n".join(init_project(folder, dataset)))
