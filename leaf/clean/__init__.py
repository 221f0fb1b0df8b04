"""Find copies, crops of one photo and outliers, and decide which images stay. No function loads all images at once."""
