"""The report: tables and images of a run in, one self-contained HTML page out; several runs side by side."""
