"""The report: tables and images of a run in, one self-contained HTML page out; several runs side by side."""

from leaf.page.report import render
from leaf.page.tables import Run, flat, read_run

__all__ = ["Run", "flat", "read_run", "render"]
