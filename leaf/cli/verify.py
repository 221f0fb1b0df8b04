"""Examples: `leaf verify`   `leaf verify HEAD~1 --tolerance 0.05`"""

from typing import Annotated

import typer

from leaf.verify import TOLERANCE, verify


def command(
    revision: Annotated[str, typer.Argument(help="git revision that contains dvc.lock")] = "HEAD",
    tolerance: Annotated[float, typer.Option(help="maximum accepted score difference", min=0)] = TOLERANCE,
) -> None:
    """Rerun the pipeline at a revision from scratch, and compare the results with its dvc.lock and metrics."""
    results = verify(revision, tolerance)
    for result in results:
        typer.echo(f"{result.stage.ljust(12)} {result.outcome.ljust(17)} {result.why}".rstrip())
    if any(result.outcome == "different" for result in results):
        raise typer.Exit(1)
