"""Use a trained model: from Python (`leaf.load`), from the command line, from a web page."""
