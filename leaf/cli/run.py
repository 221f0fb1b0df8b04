"""`leaf run`."""

from typing import Annotated

import typer

from leaf.dvc_experiments import list_experiments, run_experiments
from leaf.errors import LeafError
from leaf.experiments import parse_settings

app = typer.Typer()


@app.command(
    epilog="Examples: `leaf run --list`   `leaf run dropout_02 augmented -S epochs=20`   `leaf run dropout_02 --temp`"
)
def command(
    names: Annotated[list[str] | None, typer.Argument(help="rows of experiments.yaml", metavar="NAME…")] = None,
    settings: Annotated[list[str] | None, typer.Option("-S", "--set-param", help="parameter to set, key=value")] = None,
    show: Annotated[bool, typer.Option("--list", help="list the rows and exit")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="replace experiments with the same name")] = False,
    temp: Annotated[
        bool, typer.Option("--temp", help="run in a temporary folder and leave the workspace unchanged")
    ] = False,
) -> None:
    """Run named experiments through `dvc exp run`."""
    if show:
        typer.echo(list_experiments())
    elif names:
        raise typer.Exit(run_experiments(names, parse_settings(settings or []), force, temp))
    else:
        raise LeafError("run: no experiment given. `leaf run --list` lists them.")
