"""Stage report: reports/report.html, one page that tells this run's story from its tables alone."""

import dataclasses
import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from leaf import store
from leaf.errors import one_line_errors
from leaf.finished_run import read_run
from leaf.params import flatten, read_params
from leaf.report.render import render

REPORT = "reports/report.html"


def main() -> None:
    """Read the tables of the stages before, fill the page, write it."""
    run = read_run(".", flatten(read_params("report").model_dump()))
    html = render(dataclasses.replace(run, told=told(run.training)))
    with store.replacing(REPORT) as partial:
        partial.write_text(html, encoding="utf-8")
    print(f"{REPORT}: one file, {len(html.encode()) / 1e6:.1f} MB; open it in a browser")


def told(training: Mapping[str, Any]) -> dict[str, str]:
    """Date, commit (with the experiment's name) and duration of the run, as far as they are known on this machine."""
    found = {"Date": f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC".lstrip("0")}
    asked = ["git", "rev-parse", "--short=10", os.environ.get("DVC_EXP_BASELINE_REV", "HEAD")]
    commit = subprocess.run(asked, check=False, capture_output=True, text=True)
    if not commit.returncode:
        name = os.environ.get("DVC_EXP_NAME", "")
        found["Commit"] = commit.stdout.strip() + (f", and on it the experiment {name}" if name else "")
    if seconds := store.load_cached_value("trained", training["model_sha256"]):
        found["Training took"] = f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"
    return found


if __name__ == "__main__":
    with one_line_errors():
        main()
