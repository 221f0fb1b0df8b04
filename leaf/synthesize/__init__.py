"""Draw the demo data set, in the file format of the course, so that the project runs without downloads."""

from leaf.synthesize.dataset import COURSE, ImageCounts, draw_cartoon, draw_dataset, scaled, write_npz
from leaf.synthesize.leaves import DISEASES, draw_leaf

__all__ = ["COURSE", "DISEASES", "ImageCounts", "draw_cartoon", "draw_dataset", "draw_leaf", "scaled", "write_npz"]
