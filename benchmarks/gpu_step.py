"""A training step in bfloat16 on a GPU, Keras on JAX, against timm with torch.compile on the same card in one run.

ConvNeXt tiny and large at 96×96, a batch of 512 in micro-batches whose gradients add up. Ours is the depthwise network
of leaf under `mixed_bfloat16`, jitted; timm's is channels-last, autocast to bfloat16, compiled. Where no GPU is seen,
or jax or timm is missing, one line says so and nothing is recorded.

    KERAS_BACKEND=jax python benchmarks/gpu_step.py    # needs jax[cuda12], torch with CUDA and timm
"""

import importlib.util
import os
from collections.abc import Callable

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs a part of the same card

import numpy as np
from measure import alternate, arguments, report, row

# (batch, micro-batch of tiny, of large, side, repeats)
SIZES = {"tiny": (16, 8, 8, 32, 1), "bench": (512, 256, 64, 96, 7), "full": (512, 256, 64, 96, 21)}
Update = Callable[[], float]


def missing() -> str:
    """Why nothing can be measured here; empty where it can."""
    for package in ("jax", "torch", "timm"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    import torch

    if not torch.cuda.is_available():
        return "no GPU that PyTorch sees"
    import jax

    if jax.default_backend() != "gpu":
        return "no GPU that JAX sees"
    import keras

    return "" if keras.backend.backend() == "jax" else f"Keras runs on {keras.backend.backend()}, not on jax"


def ours(name: str, images: np.ndarray, labels: np.ndarray, micro: int) -> Update:
    """An update of leaf's network as `train` makes it."""
    from leaf import networks
    from leaf.params import Params
    from leaf.training.dataset import Batch
    from leaf.training.optimizer import compile_model, make_schedule, train_step
    from leaf.training.recipe import Recipe

    params = Params(batch_size=len(images), micro_batch=micro if micro < len(images) else 0)
    recipe = Recipe.from_params(params)
    model = networks.build(name, images.shape[1], precision="mixed_bfloat16")
    compile_model(model, recipe, make_schedule(recipe, 2, 10, 10 * len(images)))
    batch = Batch(images, labels, np.ones(len(images), np.float32))
    return lambda: train_step(model, batch, recipe)[0]


def with_timm(name: str, images: np.ndarray, labels: np.ndarray, micro: int) -> Update:
    """The same update by timm; pixels travel to the card in each step, as ours do."""
    import timm
    import torch

    network = timm.create_model(name, num_classes=2).cuda().train().to(memory_format=torch.channels_last)
    model = torch.compile(network)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4, fused=True)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    answers = torch.from_numpy(labels)
    parts = len(images) // micro

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part, wanted in zip(pixels.split(micro), answers.split(micro), strict=True):
            scaled = (part.cuda(non_blocking=True) - 116.0) / 58.0
            with torch.autocast("cuda", torch.bfloat16):
                loss = torch.nn.functional.cross_entropy(model(scaled), wanted.cuda()) / parts
            loss.backward()
            total += loss.item()
        optimizer.step()
        return total

    return step


def peaks() -> dict[str, float]:
    """The most memory of the card that each side held so far, MiB."""
    import jax
    import torch

    used = jax.local_devices()[0].memory_stats() or {}
    mine = round(used.get("peak_bytes_in_use", 0) / 2**20, 1)
    return {"ours": mine, "other": round(torch.cuda.max_memory_allocated() / 2**20, 1)}


def main() -> None:
    """Measure both networks, or say in one line why not."""
    options = arguments(__doc__)
    if why := missing():
        print(f"gpu_step: not run: {why}")
        return
    batch, tiny, large, side, repeats = SIZES[options.size]
    images = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3)).astype(np.float32)
    labels = np.eye(2, dtype=np.float32)[np.arange(batch) % 2]
    import torch

    for name, micro in (("convnext_tiny", tiny), ("convnext_large", large)):
        torch.cuda.reset_peak_memory_stats()
        step, other = ours(name, images, labels, micro), with_timm(name, images, labels, micro)
        for _ in range(2):
            step(), other()
        report(row(f"gpu_{name}", *alternate(step, other, repeats), ">= 1", peaks()), options.record)


if __name__ == "__main__":
    main()
