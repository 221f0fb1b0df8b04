"""Set seeds, and report peak memory and the versions, device and driver that bit-identical training depends on."""

import contextlib
import os
import platform
import re
import resource
import sys
from pathlib import Path

import keras
import numpy as np

_XLA_FLAG = "--xla_gpu_deterministic_ops=true"


def fix_seeds(seed: int, deterministic: bool = True) -> None:
    """Seed Python, NumPy and the backend, and reset automatic layer names.

    Call this before building the network and before JAX computes anything. With `deterministic`, TensorFlow and JAX use
    only deterministic operations for the rest of this process. This turns off XLA in Keras on TensorFlow and kernel
    autotuning on JAX. PyTorch is only seeded.
    """
    if deterministic and keras.backend.backend() == "jax" and _XLA_FLAG not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_XLA_FLAG}".strip()
    keras.backend.clear_session()
    if keras.backend.backend() != "tensorflow":
        sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]  # prevents Keras from importing it for seeding
    keras.utils.set_random_seed(seed)
    if sys.modules.get("tensorflow", keras) is None:
        del sys.modules["tensorflow"]
    if deterministic and keras.backend.backend() == "tensorflow":
        sys.modules["tensorflow"].config.experimental.enable_op_determinism()  # already imported by Keras


def versions() -> dict[str, str]:
    """Return the versions of Python, Keras, NumPy and the backend, the device, and the GPU driver if there is one."""
    backend, device = keras.backend.backend(), device_kind()
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "numpy": np.__version__,
        "backend": f"{backend} {sys.modules[backend].__version__}",
        "device": device,
        "driver": "" if device == "cpu" else driver(),
    }


def device_kind() -> str:
    """Return the backend's device: `cpu`, or the GPU model."""
    backend = sys.modules[keras.backend.backend()]
    if backend.__name__ == "jax":
        return str(backend.devices()[0].device_kind).lower()
    if backend.__name__ == "torch":
        return backend.cuda.get_device_name() if backend.cuda.is_available() else "cpu"
    gpus = backend.config.list_physical_devices("GPU")
    return backend.config.experimental.get_device_details(gpus[0]).get("device_name", "gpu") if gpus else "cpu"


def driver(path: str | Path = "/proc/driver/nvidia/version") -> str:
    """Return the version of NVIDIA's kernel module, or "" if there is none."""
    with contextlib.suppress(OSError):
        if found := re.search(r"\b\d{3}\.\d+(\.\d+)?\b", Path(path).read_text(encoding="utf-8")):
            return found[0]
    return ""


def peak_memory() -> int:
    """Return the peak memory in bytes of the GPU in use or, on a CPU, of this process."""
    backend = sys.modules[keras.backend.backend()]
    if device_kind() == "cpu":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    if backend.__name__ == "jax":
        return int((backend.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0))
    if backend.__name__ == "torch":
        return int(backend.cuda.max_memory_allocated())
    return int(backend.config.experimental.get_memory_info("GPU:0")["peak"])
