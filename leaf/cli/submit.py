"""Examples: `leaf submit --on box dropout_02`   `leaf submit --on slurm -S seed=1,2,3`
`leaf submit --all --dry-run`
"""

from typing import Annotated

import typer

from leaf.check import check
from leaf.cli.options import Target
from leaf.runner.config import read_target
from leaf.runner.jobs import engine_for, expected, submit
from leaf.runner.plan import plan


def command(
    experiments: Annotated[
        list[str] | None, typer.Argument(help="rows of experiments.yaml", metavar="EXPERIMENT…")
    ] = None,
    on: Target = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("-S", "--set-param", help="parameter to set, key=value, or key=value,value for a sweep"),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="every row of experiments.yaml")] = False,
    name: Annotated[
        str | None, typer.Option("--name", "-n", help="experiment name, or name prefix for several experiments")
    ] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="list the experiments without running them")] = False,
) -> None:
    """Run experiments on another machine."""
    target_name, target = read_target(on)
    seen: dict[str, list[str]] = {}
    planned = plan(experiments or [], settings or [], every, name, lambda setting, row: check(setting, row, seen)[0])
    if dry:
        for one in planned:
            typer.echo(f"{one.name}  {' '.join(one.settings)}")
    for line in expected(target_name, target, planned):
        typer.echo(line)
    if dry:
        typer.echo(engine_for(target).rehearsal(len(planned)), nl=False)
        return
    record, place = submit(target_name, target, planned)
    typer.echo(f"job {record.id} on {target_name}: {', '.join(one.name for one in planned)}")
    typer.echo(f"location: {place}; `leaf fetch --wait` fetches the results")
