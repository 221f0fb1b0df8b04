"""Example: `leaf fit /home/me/leaves --recipe transfer`"""

from pathlib import Path
from typing import Annotated

import typer

from leaf.cli.options import Settings
from leaf.experiments import parse_settings
from leaf.python_api import fit


def command(
    dataset: Annotated[Path, typer.Argument(help="a folder with a subfolder per class, or an .npz file")],
    recipe: Annotated[str, typer.Option(help="a row of experiments.yaml")] = "probe",
    folder: Annotated[Path, typer.Option(help="output folder for tables, model and report")] = Path("leaf-run"),
    settings: Settings = None,
) -> None:
    """Train a model in one command, without DVC."""
    fit(dataset, recipe, folder, **parse_settings(settings or []))
    typer.echo(f"model: {folder}/models/model.onnx (`leaf predict --model`); report: {folder}/reports/report.html")
