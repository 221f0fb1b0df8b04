"""Example: `pip install --upgrade leaf-dvc`, then `leaf upgrade`"""

from pathlib import Path

import typer

from leaf.project.upgrade import upgrade_project


def command() -> None:
    """Upgrade this project to the installed version of leaf, and list the stages that will rerun."""
    typer.echo("\n".join(upgrade_project(Path())))
