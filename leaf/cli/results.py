"""The command `leaf results`."""

import typer

from leaf.report.metrics_summary import summarize_metrics

EPILOG = "Example: `leaf results`, after `dvc repro`"


def command() -> None:
    """Print the results of the last pipeline run."""
    typer.echo(summarize_metrics())
