"""Examples: `leaf export --format litert`   `leaf export --format codalab --to submission.zip`
`leaf export --format web --single-file --to leaf.html`
"""

from pathlib import Path
from typing import Annotated

import typer


def command(
    form: Annotated[str, typer.Option("--format", "-f", help="web, keras, savedmodel, litert or codalab")],
    to: Annotated[Path | None, typer.Option(help="file or folder to write (default: next to the model)")] = None,
    model: Annotated[Path, typer.Option(help="a .keras file; web also accepts .onnx")] = Path("models/model.keras"),
    single_file: Annotated[bool, typer.Option("--single-file", help="web: one HTML file instead of a folder")] = False,
    runtime: Annotated[
        Path | None, typer.Option(help="web: onnxruntime-web package to use instead of downloading it")
    ] = None,
    about: Annotated[str, typer.Option(help="web: a sentence about the training images to show in the app")] = "",
) -> None:
    """Export a model that maps float32 images (N, H, W, 3), 0..255, to class probabilities, or a web app for phones."""
    if form == "web":
        from leaf.export.web import export_web  # needs neither Keras nor TensorFlow

        typer.echo(export_web(model, to, single_file, runtime, about))
    else:
        from leaf.export.formats import export

        typer.echo(export(model, form, to))
