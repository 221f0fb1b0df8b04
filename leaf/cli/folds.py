"""Examples: `leaf folds`   `leaf folds plain -S folds=5`   `leaf folds --show`"""

from typing import Annotated

import typer

from leaf.cli.options import Force, Row, Settings
from leaf.evaluate.cross_validation import finished_folds, run_folds


def command(
    experiment: Row = None,
    settings: Settings = None,
    name: Annotated[
        str | None, typer.Option(help="name prefix of the DVC experiments: NAME-fold-0, … (default: the row)")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="summarize finished folds without running any")] = False,
    force: Force = False,
) -> None:
    """Cross-validate with one DVC experiment per fold (5 unless `folds` is set). Each image is tested once."""
    stem = name or experiment or "default"
    if not show and (status := run_folds(experiment, settings or [], stem, force)):
        raise typer.Exit(status)
    typer.echo(finished_folds(stem))
