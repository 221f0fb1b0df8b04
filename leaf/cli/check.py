"""`leaf check`."""

from typing import Annotated

import typer

from leaf.check import check
from leaf.experiments import command_line, parse_settings, row_settings

app = typer.Typer()


@app.command(epilog="Examples: `leaf check`   `leaf check -S dataset=/home/me/leaves -S classes=auto`")
def command(
    row: Annotated[str | None, typer.Argument(help="row of experiments.yaml  [params.yaml]")] = None,
    settings: Annotated[list[str] | None, typer.Option("-S", "--set-param", help="parameter to set, key=value")] = None,
) -> None:
    """Check parameters and data set before any stage runs: classes, splits, skipped files, risks, weights, run time."""
    chosen, overview = check({**(row_settings(row)[0] if row else {}), **parse_settings(settings or [])}, row or "-S")
    typer.echo(overview)
    if settings and not row:
        typer.echo(f"run        {command_line(chosen)}")
