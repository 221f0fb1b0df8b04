"""The network as other programs want it: images in, class probabilities out."""

import keras


def with_probabilities(model: keras.Model, temperature: float = 1.0) -> keras.Model:
    """Put the temperature and the softmax behind a network's logits.

    Args:
        model: images, float32 (N, H, W, 3) in 0..255, to logits (N, C).
        temperature: the logits are divided by it (Guo 2017, arXiv 1706.04599).

    Returns:
        A model from the same input to probabilities, float32 (N, C), with the same weights (not copies).
    """
    logits = model.outputs[0]
    scaled = keras.layers.Rescaling(1 / temperature, dtype="float32", name="temperature")(logits)
    probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(scaled)
    return keras.Model(model.inputs[0], probabilities, name=model.name)
