"""`leaf leak`."""

from typing import Annotated

import typer

from leaf.errors import LeafError
from leaf.evaluate.leakage import frozen_leak, network_leak, run_network

app = typer.Typer()


@app.command(epilog="Examples: `leaf leak`   `leaf leak --learner neighbour -S backbone=mobilenet_v2`")
def command(
    experiment: Annotated[str | None, typer.Argument(help="row of experiments.yaml  [params.yaml]")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("-S", "--set-param", help="parameter to set, key=value; folds defaults to 5")
    ] = None,
    learner: Annotated[str, typer.Option(help="network, or logistic or neighbour on frozen features")] = "network",
    repeats: Annotated[
        int | None, typer.Option(help="repeats of all folds  [1 for network, otherwise 5]", min=1, max=100)
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="prefix of the DVC experiments NAME-leaky-0-fold-0, …  [the row]")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="summarize finished experiments without running any")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="replace experiments with the same name")] = False,
) -> None:
    """Measure the effect of leakage: compare a random split with copies kept to a grouped split with copies removed."""
    if learner == "network":
        stem = name or experiment or "default"
        if not show and (status := run_network(experiment, settings or [], stem, repeats or 1, force)):
            raise typer.Exit(status)
        typer.echo(network_leak(stem, repeats or 1))
    elif learner in ("logistic", "neighbour"):
        found, described = frozen_leak(experiment, settings or [], learner, repeats or 5)
        typer.echo(f"{found}\n  learner: {learner}, on {described}")
    else:
        raise LeafError(f"--learner: {learner}; valid: network, logistic, neighbour")
