"""Examples: `leaf predict leaf.jpg`   `leaf predict images/ --csv > out.csv`
`leaf predict 'field/**/*.jpg' --heatmap maps`   `find . -name '*.png' | leaf predict - --json`
"""

from pathlib import Path
from typing import Annotated

import typer

from leaf.serve.classifier import MODEL
from leaf.serve.predict import predict


def command(
    paths: Annotated[
        list[str], typer.Argument(help="images, folders, patterns, or - for a list on standard input", metavar="PATH…")
    ],
    model: Annotated[str, typer.Option(help=".onnx or .keras file")] = MODEL,
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON array")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print a CSV table")] = False,
    views: Annotated[
        int | None, typer.Option(help="number of augmented views to average, 1 to 16 (default: as in evaluation)")
    ] = None,
    heatmap: Annotated[Path | None, typer.Option(help="folder for Grad-CAM heatmaps")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="hide the progress bar and notes")] = False,
) -> None:
    """Predict the label and its probability for each image, and flag out-of-distribution images.

    The exit status is 1 if some images could not be read; they are listed at the end.
    """
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv are mutually exclusive")
    form = "json" if as_json else "csv" if as_csv else "text"
    raise typer.Exit(predict(paths, model, form, views, heatmap, quiet))
