"""Training on any Keras backend: data set, augmentation, optimizer, early stopping, checkpoint."""
