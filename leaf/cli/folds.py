"""`leaf folds`."""

from typing import Annotated

import typer

from leaf.evaluate.cross_validation import finished_folds, run_folds

app = typer.Typer()


@app.command(epilog="Examples: `leaf folds`   `leaf folds plain -S folds=5`   `leaf folds --show`")
def command(
    experiment: Annotated[str | None, typer.Argument(help="row of experiments.yaml  [params.yaml]")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("-S", "--set-param", help="parameter to set, key=value; folds defaults to 5")
    ] = None,
    name: Annotated[str | None, typer.Option(help="prefix of the DVC experiments NAME-fold-0, …  [the row]")] = None,
    show: Annotated[bool, typer.Option("--show", help="summarize finished folds without running any")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="replace experiments with the same name")] = False,
) -> None:
    """Cross-validate with one DVC experiment per fold; groups stay together and each image is tested once."""
    stem = name or experiment or "default"
    if not show and (status := run_folds(experiment, settings or [], stem, force)):
        raise typer.Exit(status)
    typer.echo(finished_folds(stem))
