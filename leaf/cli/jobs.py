"""The commands `leaf jobs`, `logs`, `fetch`, `cancel` and `doctor`."""

from typing import Annotated

import typer

from leaf.cli.options import Target
from leaf.runner import jobs as runner
from leaf.runner.config import read_target
from leaf.runner.doctor import examine

EPILOGS = {
    "jobs": "Example: `leaf jobs`",
    "logs": "Examples: `leaf logs`   `leaf logs dropout_02 --follow`",
    "fetch": "Examples: `leaf fetch --wait`   `leaf fetch dropout_02 --models`",
    "cancel": "Example: `leaf cancel dropout_02`",
    "doctor": "Example: `leaf doctor --on box`",
}

Names = Annotated[list[str] | None, typer.Argument(help="jobs or experiments (default: all)", metavar="JOB…")]
Every = Annotated[float, typer.Option(help="seconds between queries", min=0.1)]


def jobs(names: Names = None) -> None:
    """List jobs and their states."""
    typer.echo("\n".join(runner.listing(names or [])))


def logs(
    name: Annotated[str | None, typer.Argument(help="a job or an experiment (default: the newest)")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="print new lines until the experiment ends")] = False,
    every: Every = 2,
) -> None:
    """Print the log of an experiment."""
    for part in runner.follow(name, follow, every):
        typer.echo(part, nl=False)


def fetch(
    names: Names = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="wait until all experiments end")] = False,
    models: Annotated[
        bool, typer.Option("--models", "-m", help="also fetch outputs, as required by `dvc exp apply`")
    ] = False,
    every: Every = 5,
) -> None:
    """Fetch results as DVC experiments, for `dvc exp show` and, with --models, for `dvc exp apply NAME`."""
    raise typer.Exit(runner.fetch(names or [], wait, models, every, typer.echo))


def cancel(names: Annotated[list[str], typer.Argument(help="jobs or experiments", metavar="JOB…")]) -> None:
    """Cancel jobs or experiments and stop all their processes."""
    runner.cancel(names, typer.echo)


def doctor(on: Target = None) -> None:
    """Check the connection to a target step by step, and report what to fix."""
    name, target = read_target(on)
    broken = False
    for finding in examine(name, target):
        typer.echo(str(finding))
        broken = broken or not finding.good
    raise typer.Exit(1 if broken else 0)
