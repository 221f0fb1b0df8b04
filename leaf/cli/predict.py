"""`leaf predict`."""

from pathlib import Path
from typing import Annotated

import typer

from leaf.serve.classifier import MODEL
from leaf.serve.predict import predict

app = typer.Typer()


@app.command(
    epilog="Examples: `leaf predict leaf.jpg`   `leaf predict photographs --csv > out.csv`   "
    "`leaf predict 'field/**/*.jpg' --heatmap maps`   `find . -name '*.png' | leaf predict - --json`"
)
def command(
    paths: Annotated[
        list[str], typer.Argument(help="images, folders, patterns, or - for a list on standard input", metavar="PATH…")
    ],
    model: Annotated[str, typer.Option(help="an .onnx file, or a .keras file")] = MODEL,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON array")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="a CSV table")] = False,
    views: Annotated[int | None, typer.Option(help="views of an image averaged, 1 to 16  [as evaluated]")] = None,
    heatmap: Annotated[Path | None, typer.Option(help="folder for pictures of where the network looked")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress bar, no remarks")] = False,
) -> None:
    """Predict photographs: label, probability (of the second of two classes), and whether the model knows their kind.

    Exit status 1 where an image could not be read: it is named at the end and the rest is done.
    """
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    form = "json" if as_json else "csv" if as_csv else "text"
    raise typer.Exit(predict(paths, model, form, views, heatmap, quiet))
