"""The report: tables and images of a run in, one self-contained HTML page out; several runs side by side."""

from leaf.report.page import render
from leaf.report.run import Run, flat, read_run

__all__ = ["Run", "flat", "read_run", "render"]
