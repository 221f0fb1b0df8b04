"""`leaf export`."""

from pathlib import Path
from typing import Annotated

import typer

from leaf.export import export

app = typer.Typer()


@app.command(epilog="Examples: `leaf export --format litert`   `leaf export --format codalab --to submission.zip`")
def command(
    form: Annotated[str, typer.Option("--format", "-f", help="keras, savedmodel, litert or codalab")],
    to: Annotated[Path | None, typer.Option(help="file or folder to write  [next to the model]")] = None,
    model: Annotated[str, typer.Option(help="a .keras file")] = "models/model.keras",
) -> None:
    """Export the model: float32 images (N, H, W, 3) in 0..255 to class probabilities."""
    typer.echo(export(model, form, to))
