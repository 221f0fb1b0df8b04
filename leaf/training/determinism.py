"""The same seed gives the same bits; and what else the bits depend on."""

import platform
import sys

import keras
import numpy as np


def fix_seeds(seed: int) -> None:
    """Seed Python, numpy and the backend, start names anew, and have TensorFlow use deterministic operations only.

    Call it before the network is built: its initial weights and its dropout follow from the seed.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        sys.modules["tensorflow"].config.experimental.enable_op_determinism()  # Keras has imported it


def versions() -> dict[str, str]:
    """Python, Keras, numpy and the backend with its version: what equal bits need to be equal."""
    backend = keras.backend.backend()
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "numpy": np.__version__,
        "backend": f"{backend} {sys.modules[backend].__version__}",
    }
