"""Examples: `leaf lr-range`   `leaf lr-range --highest 0.1 --figure range.svg`"""

from dataclasses import astuple
from pathlib import Path
from typing import Annotated

import typer

from leaf.errors import LeafError
from leaf.params import read_params
from leaf.report.charts import lr_range
from leaf.report.render import standalone
from leaf.store import replacing
from leaf.train.lr_finder import run_range_test


def command(
    figure: Annotated[str, typer.Option(help="SVG file to write")] = "lr-range.svg",
    lowest: Annotated[float, typer.Option(help="first learning rate")] = 1e-5,
    highest: Annotated[float, typer.Option(help="last learning rate")] = 1.0,
    updates: Annotated[int, typer.Option(help="number of updates")] = 200,
) -> None:
    """Propose learning_rate.base and learning_rate.max with Smith's learning rate range test."""
    if Path(figure).suffix != ".svg":
        raise LeafError(f"{figure}: the name does not end with .svg. Use NAME.svg.")
    test = run_range_test(read_params("train"), lowest, highest, updates)
    with replacing(figure) as partial:
        partial.write_text(standalone(lr_range(*astuple(test))), encoding="utf-8")
    typer.echo(
        f"{len(test.rates)} updates with learning rates from {lowest:.1e} to {test.rates[-1]:.1e}: the smoothed loss "
        f"fell from {test.smoothed[0]:.3f} to {min(test.smoothed):.3f}; see {figure}\n"
        f"proposed: -S learning_rate.base={test.base:.1e} -S learning_rate.max={test.max:.1e}"
    )
