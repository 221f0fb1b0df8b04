"""Read a data set of photographs, an .npz file or a folder, into one array of square images and one table."""

from leaf.ingest.ingest import Ingested, ingest

__all__ = ["Ingested", "ingest"]
