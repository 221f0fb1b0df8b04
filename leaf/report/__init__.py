"""HTML reports: one self-contained page about a run, or about several runs side by side."""
