"""Find copies, crops of one photo and outliers, and decide which images to keep, without loading all images at once."""
