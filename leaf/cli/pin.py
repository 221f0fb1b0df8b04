"""Example: `leaf pin`, then commit data/pinned.csv to git"""

import typer

from leaf.split.pins import pin_split


def command() -> None:
    """Pin the current images to their splits, so that they stay there when you add, rename or delete images."""
    typer.echo(pin_split())
