"""Examples: `leaf report dropout_02`   `leaf report main dropout_02 augmented --to side_by_side.html`"""

from typing import Annotated

import typer

from leaf.report.side_by_side import write_report


def command(
    revisions: Annotated[
        list[str],
        typer.Argument(help="git revisions, experiments or workspace; join seeds with commas", metavar="REV…"),
    ],
    to: Annotated[str, typer.Option(help="HTML file to write")] = "reports/side_by_side.html",
) -> None:
    """Write a page that compares runs side by side. A single run is compared with the workspace."""
    typer.echo(write_report(revisions, to))
