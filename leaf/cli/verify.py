"""`leaf verify`."""

from typing import Annotated

import typer

from leaf.verify import TOLERANCE, verify

app = typer.Typer()


@app.command(epilog="Examples: `leaf verify`   `leaf verify HEAD~1 --tolerance 0.05`")
def command(
    revision: Annotated[str, typer.Argument(help="git revision with a dvc.lock")] = "HEAD",
    tolerance: Annotated[float, typer.Option(help="largest accepted difference between scores", min=0)] = TOLERANCE,
) -> None:
    """Rerun the pipeline of a revision from scratch and compare it with the committed lock and metrics."""
    results = verify(revision, tolerance)
    for result in results:
        typer.echo(f"{result.stage.ljust(12)} {result.outcome.ljust(17)} {result.why}".rstrip())
    if any(result.outcome == "different" for result in results):
        raise typer.Exit(1)
