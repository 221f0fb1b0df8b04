"""`leaf jobs | logs | fetch | cancel | doctor`."""

from typing import Annotated

import typer

app = typer.Typer()

Names = Annotated[list[str] | None, typer.Argument(help="jobs or experiments (default: all)", metavar="JOB…")]
Every = Annotated[float, typer.Option(help="seconds between queries", min=0.1)]


@app.command(epilog="Example: `leaf jobs`")
def jobs(names: Names = None) -> None:
    """List jobs and their states."""
    from leaf.runner.jobs import listing

    for line in listing(names or []):
        typer.echo(line)


@app.command(epilog="Examples: `leaf logs`   `leaf logs dropout_02 --follow`")
def logs(
    name: Annotated[str | None, typer.Argument(help="a job or an experiment (default: the newest)")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="follow the log until the experiment ends")] = False,
    every: Every = 2,
) -> None:
    """Print the log of an experiment."""
    from leaf.runner.jobs import follow as parts

    for part in parts(name, follow, every):
        typer.echo(part, nl=False)


@app.command(epilog="Examples: `leaf fetch --wait`   `leaf fetch dropout_02 --models`")
def fetch(
    names: Names = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="wait until all have ended")] = False,
    models: Annotated[bool, typer.Option("--models", "-m", help="fetch the outputs too, for `dvc exp apply`")] = False,
    every: Every = 5,
) -> None:
    """Fetch results as DVC experiments for `dvc exp show`, and with --models also for `dvc exp apply NAME`."""
    from leaf.runner.jobs import fetch

    raise typer.Exit(fetch(names or [], wait, models, every, typer.echo))


@app.command(epilog="Example: `leaf cancel dropout_02`")
def cancel(names: Annotated[list[str], typer.Argument(help="jobs or experiments", metavar="JOB…")]) -> None:
    """Cancel jobs or experiments and stop all their processes."""
    from leaf.runner.jobs import cancel

    cancel(names, typer.echo)


@app.command(epilog="Example: `leaf doctor --on box`")
def doctor(
    on: Annotated[
        str | None, typer.Option("--on", help="target in runner.yaml (default: the one under `default`)")
    ] = None,
) -> None:
    """Check each link between this machine and a target, and report what to fix."""
    from leaf.runner.config import read_target
    from leaf.runner.doctor import examine

    name, target = read_target(on)
    broken = False
    for finding in examine(name, target):
        typer.echo(str(finding))
        broken = broken or not finding.good
    raise typer.Exit(1 if broken else 0)
