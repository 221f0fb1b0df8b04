"""The command `leaf pin`."""

import typer

from leaf.split.pins import pin_split

EPILOG = "Example: `leaf pin`, then commit data/pinned.csv to git"


def command() -> None:
    """Pin the current images to their splits, so that they stay there when you add, rename or delete images."""
    typer.echo(pin_split())
