"""Validate params.yaml before any other stage runs: DVC deletes the outputs of a stage before it starts the stage."""

from pathlib import Path

from leaf.errors import one_line_errors
from leaf.models import backbones
from leaf.params import read_params
from leaf.store import replacing

VALIDATED = Path("data/validated.txt")


def main() -> None:
    """Check every parameter, their combinations and the weights file; write a constant file for the later stages."""
    params = read_params("validate")
    backbones.check(params, 2 if params.classes == "auto" else len(params.classes))
    if backbones.is_detector(params.backbone):
        backbones.check_recipe(params, params.backbone)
    if backbones.is_weights_file(params.weights):
        backbones.check_weights_file(Path(params.weights), params.weights_sha256)
    VALIDATED.parent.mkdir(exist_ok=True)
    with replacing(VALIDATED) as partial:
        partial.write_text("valid\n", encoding="utf-8")


if __name__ == "__main__":
    with one_line_errors():
        main()
