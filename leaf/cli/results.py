"""`leaf results`."""

import typer

from leaf.report.metrics_summary import summarize_metrics

app = typer.Typer()


@app.command(epilog="Example: `leaf results`, after `dvc repro`")
def command() -> None:
    """Print what the last run of the pipeline gave."""
    typer.echo(summarize_metrics())
