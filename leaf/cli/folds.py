"""`leaf folds`."""

from typing import Annotated

import typer

from leaf.evaluate.cross_validation import finished_folds, run_folds

app = typer.Typer()


@app.command(epilog="Examples: `leaf folds`   `leaf folds plain -S folds=5`   `leaf folds --show`")
def command(
    experiment: Annotated[str | None, typer.Argument(help="a row of experiments.yaml  [params.yaml as it is]")] = None,
    settings: Annotated[list[str] | None, typer.Option("-S", "--set-param", help="key=value; folds=N, else 5")] = None,
    name: Annotated[str | None, typer.Option(help="of the DVC experiments NAME-fold-0, …  [the row's]")] = None,
    show: Annotated[bool, typer.Option("--show", help="print what finished folds gave, run none")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="replace experiments of the same name")] = False,
) -> None:
    """Cross-validate: a DVC experiment a fold, groups whole, each image tested once; mean, spread, intervals."""
    stem = name or experiment or "default"
    if not show and (status := run_folds(experiment, settings or [], stem, force)):
        raise typer.Exit(status)
    typer.echo(finished_folds(stem))
