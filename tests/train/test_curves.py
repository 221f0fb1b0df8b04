"""Test the tables that DVCLive writes during training."""

import math
from pathlib import Path

from leaf.train.callbacks import CURVES, dvclive_callback, write_curves

ROWS = [dict.fromkeys(CURVES, 0.5) | {"epoch": epoch, "phase": 2} for epoch in (1, 2)]


def written(folder: Path, rows: list[dict[str, float]] = ROWS) -> dict[str, bytes]:
    with dvclive_callback(folder) as on_epoch_end:
        for row in rows:
            on_epoch_end(row)
    return files_in(folder)


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_each_curve_is_a_table_of_epochs(tmp_path: Path) -> None:
    files = written(tmp_path / "live")
    assert files["plots/metrics/validation_accuracy.tsv"] == b"step\tvalidation_accuracy\n1\t0.5\n2\t0.5\n"
    assert {f"plots/metrics/{name}.tsv" for name in CURVES} <= set(files)


def test_identical_runs_write_identical_files_and_replace_old_ones(tmp_path: Path) -> None:
    first = written(tmp_path / "one")
    again = written(tmp_path / "one")
    assert first == again == written(tmp_path / "two")


def test_curves_of_a_single_epoch_equal_those_of_dvclive(tmp_path: Path) -> None:
    row = ROWS[0] | {"epoch": 0, "loss": 0.1 + 0.2, "learning_rate": math.nan}
    written(tmp_path / "own")  # replaced by the next call
    write_curves(tmp_path / "own", row)
    assert files_in(tmp_path / "own") == written(tmp_path / "dvclive", [row])
