"""Examples: `leaf leak`   `leaf leak --learner neighbour -S backbone=mobilenet_v2`"""

from typing import Annotated

import typer

from leaf.cli.options import Force, Row, Settings
from leaf.errors import LeafError
from leaf.evaluate.leakage import frozen_leak, network_leak, run_network


def command(
    experiment: Row = None,
    settings: Settings = None,
    learner: Annotated[
        str, typer.Option(help="network, or a learner on frozen features: logistic or neighbour")
    ] = "network",
    repeats: Annotated[
        int | None,
        typer.Option(help="repetitions of the cross-validation (default: 1 for network, otherwise 5)", min=1, max=100),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="name prefix of the DVC experiments: NAME-leaky-0-fold-0, … (default: the row)")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="summarize finished experiments without running any")] = False,
    force: Force = False,
) -> None:
    """Compare random folds that include copies with grouped folds that exclude them (5 unless `folds` is set)."""
    if learner == "network":
        stem = name or experiment or "default"
        if not show and (status := run_network(experiment, settings or [], stem, repeats or 1, force)):
            raise typer.Exit(status)
        typer.echo(network_leak(stem, repeats or 1))
    elif learner in ("logistic", "neighbour"):
        found, described = frozen_leak(experiment, settings or [], learner, repeats or 5)
        typer.echo(f"{found}\n  learner: {learner}, on {described}")
    else:
        raise LeafError(f"--learner: {learner}: no such learner. Use network, logistic or neighbour.")
