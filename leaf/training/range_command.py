"""What `leaf lr-range` does: run the range test on the pipeline's data and propose a learning rate."""

from pathlib import Path
from typing import Any

from leaf import store
from leaf.errors import LeafError
from leaf.training.determinism import fix_seeds
from leaf.training.inputs import build_network, read_inputs
from leaf.training.range_figure import drawing
from leaf.training.range_test import range_test
from leaf.training.recipe import Recipe


def lr_range(view: Any, figure: str, lowest: float, highest: float, updates: int) -> str:
    """Run the test with the parameters `view` (of the stage train), draw it to `figure`; lines for a person.

    Raises:
        LeafError: where the earlier stages have not run, or the loss never falls.
    """
    if Path(figure).suffix != ".svg":
        raise LeafError(f"{figure}: not a name for an SVG drawing; valid: NAME.svg")
    examples, _ = read_inputs()
    fix_seeds(view.seed)
    model = build_network(view)
    test = range_test(model, examples, Recipe.from_params(view), lowest, highest, updates)
    with store.replacing(figure) as partial:
        partial.write_text(drawing(test), encoding="utf-8")
    return (
        f"{len(test.rates)} updates from {lowest:.1e} to {test.rates[-1]:.1e}: the smoothed loss fell from "
        f"{test.smoothed[0]:.3f} to {min(test.smoothed):.3f}; drawn in {figure}\n"
        f"proposed: -S learning_rate.base={test.base:.1e} -S learning_rate.max={test.max:.1e}"
    )
