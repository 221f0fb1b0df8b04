"""`leaf report`."""

from typing import Annotated

import typer

from leaf.report.side_by_side import write_report

app = typer.Typer()


@app.command(
    epilog="Examples: `leaf report dropout_02`   `leaf report main dropout_02 augmented --to side_by_side.html`"
)
def command(
    revisions: Annotated[
        list[str], typer.Argument(help="git revisions, experiments, workspace; several seeds: REV,REV", metavar="REV…")
    ],
    to: Annotated[str, typer.Option(help="where the page goes")] = "reports/side_by_side.html",
) -> None:
    """Put several runs on one page; one alone stands beside the workspace."""
    typer.echo(write_report(revisions, to))
