"""Compare a bfloat16 training step of Keras on JAX with timm and torch.compile, on the same GPU in one run.

    python benchmarks/gpu_step.py [--depthwise shifted]    # needs jax[cuda12], torch with CUDA and timm

The networks are ConvNeXt tiny and large at 96×96, with batches of 512 images split into micro-batches. leaf trains its
network as `leaf submit --on card` does, with the backend in runner.yaml and with SETTINGS on top of params.yaml. timm's
network is channels-last, compiled, and autocast to bfloat16. `--depthwise` selects an alternative 7×7 convolution of
depthwise.py, whose results are printed but not recorded. If the GPU or a package is missing, the script prints the
reason and records nothing. With `--size tiny`, it then runs leaf's step alone, with each alternative.
"""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

from leaf.runner.config import RUNNER_FILE, read_target

os.environ |= read_target("card", Path(__file__).parents[1] / RUNNER_FILE)[1].environment  # before Keras is imported
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave GPU memory for PyTorch

import numpy as np
from measure import alternate, arguments, report, row

KINDS = ("nhwc", "shifted", "nchw")  # keys of depthwise.KINDS, which would import Keras too early
SETTINGS = {"deterministic": False, "precision": "mixed_bfloat16"}  # recommended for GPUs
# (networks with their micro-batches, batch, side, repeats)
BOTH = {"convnext_tiny": 256, "convnext_large": 64}
SIZES = {"tiny": ({"convnext_atto": 8}, 16, 32, 2), "bench": (BOTH, 512, 96, 7), "full": (BOTH, 512, 96, 21)}
Update = Callable[[], float]


def missing() -> str:
    """Return the reason why this machine cannot run the benchmark, or an empty string."""
    for package in ("jax", "torch", "timm"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    import torch

    if not torch.cuda.is_available():
        return "PyTorch finds no GPU"
    import jax

    if jax.default_backend() != "gpu":
        return "JAX finds no GPU"
    import keras

    return "" if keras.backend.backend() == "jax" else f"the Keras backend is {keras.backend.backend()}; valid: jax"


def ours(name: str, images: np.ndarray, labels: np.ndarray, micro: int, depthwise: str) -> Update:
    """Return a function that runs the training step of the `train` stage on leaf's network."""
    from depthwise import with_depthwise

    from leaf.models.build import build_model_from_params
    from leaf.params import Params
    from leaf.train.dataset import Batch
    from leaf.train.learning_rate import make_schedule
    from leaf.train.optimizer import compile_model, train_step
    from leaf.train.reproducibility import fix_seeds

    sizes = {"batch_size": len(images), "micro_batch": micro if micro < len(images) else 0}
    params = Params(backbone=name, image_size=images.shape[1], **sizes, **SETTINGS)
    fix_seeds(params.seed, params.deterministic)
    model = with_depthwise(build_model_from_params(params, 2), depthwise)
    compile_model(model, params, make_schedule(params, 2, 10, 10 * len(images)))
    batch = Batch(images, labels, np.ones(len(images), np.float32))
    return lambda: train_step(model, batch, params)[0]


def with_timm(name: str, images: np.ndarray, labels: np.ndarray, micro: int) -> Update:
    """Return a function that runs the same update in timm; like leaf, it copies the images to the GPU in each step."""
    import timm
    import torch

    network = timm.create_model(name, num_classes=2).cuda().train().to(memory_format=torch.channels_last)
    model = torch.compile(network)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4, fused=True)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    answers, total = torch.from_numpy(labels), torch.zeros((), device="cuda")
    parts = len(images) // micro

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        total.zero_()
        for part, wanted in zip(pixels.split(micro), answers.split(micro), strict=True):
            scaled = (part.cuda(non_blocking=True).float() - 116.0) / 58.0
            with torch.autocast("cuda", torch.bfloat16):
                loss = torch.nn.functional.cross_entropy(model(scaled), wanted.cuda()) / parts
            loss.backward()
            total.add_(loss.detach())
        optimizer.step()
        return total.item()  # the loss is read once per update, as in leaf

    return step


def peaks() -> dict[str, float]:
    """Return the peak GPU memory of leaf and timm in MiB."""
    import torch

    from leaf.train.reproducibility import peak_memory

    return {"ours": round(peak_memory() / 2**20, 1), "other": round(torch.cuda.max_memory_allocated() / 2**20, 1)}


def main() -> None:
    options = arguments(__doc__, depthwise=KINDS)
    chosen, batch, side, repeats = SIZES[options.size]
    images = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)
    labels = np.eye(2, dtype=np.float32)[np.arange(batch) % 2]
    if why := missing():
        print(f"gpu_step: not run: {why}")
        for name, micro in chosen.items() if options.size == "tiny" else ():
            for kind in KINDS:
                step = ours(name, images, labels, micro, kind)
                print(f"gpu_step: ours alone, {name}, {kind}: losses", *(round(step(), 4) for _ in range(1 + repeats)))
        return
    import torch

    for name, micro in chosen.items():
        torch.cuda.reset_peak_memory_stats()
        step, other = ours(name, images, labels, micro, options.depthwise), with_timm(name, images, labels, micro)
        for _ in range(2):
            step(), other()
        measured = row(f"gpu_{name}", *alternate(step, other, repeats), ">= 1", peaks())
        report(measured, options.record and options.depthwise == KINDS[0])


if __name__ == "__main__":
    main()
