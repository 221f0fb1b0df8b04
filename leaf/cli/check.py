"""Examples: `leaf check`   `leaf check -S dataset=/home/me/leaves -S classes=auto`"""

import typer

from leaf.check import check
from leaf.cli.options import Row, Settings
from leaf.experiments import command_line, parse_settings, row_settings


def command(row: Row = None, settings: Settings = None) -> None:
    """Check parameters and data set before a run: classes, splits, skipped files, risks, weights and training time."""
    chosen, overview = check({**(row_settings(row)[0] if row else {}), **parse_settings(settings or [])}, row or "-S")
    typer.echo(overview)
    if settings and not row:
        typer.echo(f"run        {command_line(chosen)}")
