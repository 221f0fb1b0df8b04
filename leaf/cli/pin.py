"""`leaf pin`."""

import typer

from leaf.review.decision_files import pin_split

app = typer.Typer()


@app.command(epilog="Example: `leaf pin`, then commit data/pinned.csv to git")
def command() -> None:
    """Pin the current images to their splits, so that adding, renaming or deleting images moves none of them."""
    typer.echo(pin_split())
