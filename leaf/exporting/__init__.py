"""Write a trained model for other programs: Keras, SavedModel, ONNX, LiteRT, the course's server."""

from leaf.exporting.exporting import FORMATS, export

__all__ = ["FORMATS", "export"]
