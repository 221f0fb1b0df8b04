"""Validate params.yaml and the data set before DVC deletes the outputs of any other stage."""

import subprocess
from pathlib import Path

from leaf.check import check
from leaf.errors import LeafError, one_line_errors
from leaf.params import PARAMS_FILE
from leaf.store import replacing

VALIDATED = Path("data/validated.txt")


def main() -> None:
    """Check parameters, data set and weights file, and write a constant file that `synthesize` and `ingest` need."""
    try:
        check({})
    except LeafError as error:
        committed = subprocess.run(["git", "show", f"HEAD:./{PARAMS_FILE}"], capture_output=True, check=False)
        if committed.returncode or committed.stdout == Path(PARAMS_FILE).read_bytes():
            raise
        undo = f"To restore the committed {PARAMS_FILE}, run `git checkout {PARAMS_FILE}`."
        raise LeafError(f"{str(error).rstrip('.')}. {undo}") from None
    VALIDATED.parent.mkdir(exist_ok=True)
    with replacing(VALIDATED) as partial:
        partial.write_text("valid\n", encoding="utf-8")


if __name__ == "__main__":
    with one_line_errors():
        main()
