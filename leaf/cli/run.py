"""Examples: `leaf run --list`   `leaf run dropout_02 augmented -S epochs=20`   `leaf run dropout_02 --temp`"""

from typing import Annotated

import typer

from leaf.cli.options import Force, Settings
from leaf.dvc_experiments import list_experiments, run_experiments
from leaf.errors import LeafError
from leaf.experiments import parse_settings


def command(
    names: Annotated[list[str] | None, typer.Argument(help="rows of experiments.yaml", metavar="NAME…")] = None,
    settings: Settings = None,
    show: Annotated[bool, typer.Option("--list", help="list the rows and exit")] = False,
    force: Force = False,
    temp: Annotated[
        bool, typer.Option("--temp", help="run in a temporary folder, without changing the workspace")
    ] = False,
) -> None:
    """Run named experiments through `dvc exp run`."""
    if show:
        typer.echo(list_experiments())
    elif names:
        raise typer.Exit(run_experiments(names, parse_settings(settings or []), force, temp))
    else:
        raise LeafError("run: no experiment specified. List the experiments with `leaf run --list`.")
