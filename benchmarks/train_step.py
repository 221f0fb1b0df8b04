"""Compare a training step on a CPU with unmodified keras.applications and with the same network in PyTorch.

A step is one update of convnext_atto and convnext_tiny at 96×96 as in `train` (Adam, cyclical learning rate,
deterministic operations). The first peer is keras.applications' ConvNeXtTiny on TensorFlow with the same head. The
second is the same network in plain PyTorch, channels-last, with the same number of parameters. Each side is warmed up,
uses the same batch, reads its loss after each update, and may use all cores.
"""

import importlib.util
from collections.abc import Callable

import keras
import numpy as np
from measure import alternate, arguments, report, row

from leaf.models.build import build_model
from leaf.params import Params
from leaf.train.dataset import Batch
from leaf.train.learning_rate import make_schedule
from leaf.train.optimizer import compile_model, train_step
from leaf.train.reproducibility import fix_seeds

# (batch of convnext_atto, of convnext_tiny, side of the images, repeats)
SIZES = {"tiny": (2, 2, 32, 1), "bench": (32, 16, 96, 5), "full": (32, 32, 96, 15)}
STEPS = 4  # updates of convnext_atto per measurement; convnext_tiny has a quarter as many
Update = Callable[[], object]


def batch_of(count: int, side: int) -> Batch:
    """Return random images with alternating labels."""
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3)).astype(np.float32)
    return Batch(images, np.eye(2, dtype=np.float32)[np.arange(count) % 2], np.ones(count, np.float32))


def compiled(model: keras.Model, batch: Batch) -> Update:
    """Return a function that runs one update of a Keras network with the default recipe, as in `train`."""
    recipe = Params(batch_size=len(batch.images))
    compile_model(model, recipe, make_schedule(recipe, 2, 13, 13 * recipe.batch_size))
    return lambda: train_step(model, batch, recipe)


def shipped(batch: Batch) -> keras.Model:
    """Return keras.applications' ConvNeXtTiny with leaf's head."""
    image = keras.Input(batch.images.shape[1:])
    dropped = keras.layers.Dropout(0.1)(image)
    body = keras.applications.ConvNeXtTiny(include_top=False, weights=None, input_tensor=dropped, pooling="avg")
    return keras.Model(image, keras.layers.Dense(2)(keras.layers.BatchNormalization()(body.output)))


def in_torch(name: str, batch: Batch, parameters: int) -> Update:
    """Return a function that runs the same update in PyTorch; exit if the number of parameters differs."""
    import convnext_torch
    import torch

    model = convnext_torch.build(name).train()
    # BatchNormalization's two moving statistics count as parameters in Keras; PyTorch keeps them as buffers.
    found = sum(each.numel() for each in model.parameters()) + 2 * model.head[1].num_features
    if found != parameters:
        raise SystemExit(f"train_step: {name} has {found} parameters in PyTorch but {parameters} in Keras")
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    loss_of = torch.nn.CrossEntropyLoss()
    images = torch.from_numpy(batch.images).permute(0, 3, 1, 2)  # already channels-last
    labels = torch.from_numpy(batch.labels)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def measure(name: str, ours: Update, other: Update, steps: int, repeats: int, target: str, record: bool) -> None:
    """Warm up both sides, alternate them, and report the row; times are per update."""
    for _ in range(2):
        ours(), other()

    def several(one: Update) -> Update:
        return lambda: [one() for _ in range(steps)]

    times = alternate(several(ours), several(other), repeats)
    report(row(name, *([seconds / steps for seconds in side] for side in times), target), record)


def main() -> None:
    options = arguments(__doc__)
    atto, tiny, side, repeats = SIZES[options.size]
    steps = STEPS if options.size != "tiny" else 1
    for name, count, steps_each in (("convnext_atto", atto, steps), ("convnext_tiny", tiny, -(-steps // 4))):
        batch = batch_of(count, side)
        fix_seeds(42)
        model = build_model(name, side)
        ours = compiled(model, batch)
        if name == "convnext_tiny":
            other = compiled(shipped(batch), batch)
            measure("train_step_keras", ours, other, steps_each, repeats, ">= 4", options.record)
            del other
        if importlib.util.find_spec("torch") is None:
            print(f"train_step_{name}: PyTorch is not installed. Run `pip install -r benchmarks/requirements.txt`.")
            continue
        other = in_torch(name, batch, model.count_params())
        measure(f"train_step_{name}", ours, other, steps_each, repeats, ">= 1.1", options.record)


if __name__ == "__main__":
    main()
