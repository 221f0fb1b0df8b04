"""The command `leaf upgrade`."""

from pathlib import Path

import typer

EPILOG = "Example: `pip install --upgrade leaf-dvc`, then `leaf upgrade`"


def command() -> None:
    """Upgrade this project to the installed version of leaf, and list the stages that will rerun."""
    from leaf.project.upgrade import upgrade_project

    for line in upgrade_project(Path()):
        typer.echo(line)
