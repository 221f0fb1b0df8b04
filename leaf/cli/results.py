"""Example: `leaf results`, after `dvc repro`"""

import typer

from leaf.report.metrics_summary import summarize_metrics


def command() -> None:
    """Print the results of the last pipeline run."""
    typer.echo(summarize_metrics())
