"""`leaf fit`."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command(epilog="Example: `leaf fit /home/me/leaves --recipe transfer`")
def command(
    dataset: Annotated[Path, typer.Argument(help="a folder with a sub-folder per class, or an .npz file")],
    recipe: Annotated[str, typer.Option(help="a row of experiments.yaml")] = "probe",
    folder: Annotated[Path, typer.Option(help="folder for tables, model and report")] = Path("leaf-run"),
    settings: Annotated[list[str] | None, typer.Option("-S", "--set-param", help="parameter to set, key=value")] = None,
) -> None:
    """Train a model on a data set in one command, without DVC."""
    from leaf.experiments import parse_settings
    from leaf.python_api import fit

    fit(dataset, recipe, folder, **parse_settings(settings or []))
    typer.echo(f"{folder}/models/model.onnx: `leaf predict --model` uses it; report: {folder}/reports/report.html")
