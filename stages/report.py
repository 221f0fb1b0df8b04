"""Write the report, the one-page summary and the model card of a run."""

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
from leaf.report.render import model_card, render, render_summary

PAGES = {"reports/report.html": render, "reports/summary.html": render_summary, "reports/model_card.md": model_card}


def main() -> None:
    """Read the run's tables, and render and write each page."""
    run = read_run(".", flatten(read_params("report").model_dump()))
    run = dataclasses.replace(run, facts=facts(run.training))
    for path, rendered in PAGES.items():
        with store.replacing(path) as partial:
            partial.write_text(rendered(run), encoding="utf-8")
    print(f"wrote {', '.join(PAGES)}")


def facts(training: Mapping[str, Any]) -> dict[str, str]:
    """Return the date and, if known, the commit, experiment and training time."""
    found = {"Date": f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC".lstrip("0")}
    asked = ["git", "rev-parse", "--short=10", os.environ.get("DVC_EXP_BASELINE_REV", "HEAD")]
    commit = subprocess.run(asked, check=False, capture_output=True, text=True)
    if not commit.returncode:
        name = os.environ.get("DVC_EXP_NAME", "")
        found["Commit"] = commit.stdout.strip() + (f", experiment {name}" if name else "")
    if seconds := store.load_cached_value("trained", training["model_sha256"], 1.0):
        found["Training took"] = f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"
    return found


if __name__ == "__main__":
    with one_line_errors():
        main()
