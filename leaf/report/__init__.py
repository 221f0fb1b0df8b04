"""The report: render a run's tables and images as one self-contained HTML page, or several runs side by side."""
