"""Loss and accuracy on held-out images."""

import keras
import numpy as np

from leaf.training.examples import Examples


def figures(model: keras.Model, examples: Examples, batch_size: int) -> dict[str, float]:
    """Mean cross-entropy and accuracy of `model` on `examples`, unweighted and without label smoothing."""
    logits = ask(model, examples, batch_size)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    labels = examples.all_labels
    loss = -log_probability[np.arange(len(labels)), labels].mean()
    return {"loss": float(loss), "accuracy": float((logits.argmax(axis=1) == labels).mean())}


def ask(model: keras.Model, examples: Examples, batch_size: int) -> np.ndarray:
    """The logits for each example, (n, 2) float64; every batch is of one size, so that nothing compiles twice."""
    size = min(batch_size, len(examples))
    parts = []
    for start in range(0, len(examples), size):
        positions = np.minimum(np.arange(start, start + size), len(examples) - 1)
        parts.append(np.asarray(model.predict_on_batch(examples.take(positions)), np.float64))
    return np.concatenate(parts)[: len(examples)]
