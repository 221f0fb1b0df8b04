"""Find copies, crops of the same photo and outliers, and decide which images to keep."""
