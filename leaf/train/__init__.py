"""Train on any Keras backend: data set, augmentation, optimizer, early stopping and checkpoints."""
