"""Use a trained model from Python (`leaf.load`), from the command line, or on a web page."""
