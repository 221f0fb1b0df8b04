"""Compare networks and settings for training from scratch on development images.

    python benchmarks/scratch.py ../shared/data --recipes default default+backbone=atto_bn_stem --seeds 1 2 3

The development images are those of leaves_1041.npz outside its published test split, and leaves_by_plant. A recipe is a
row of experiments.yaml, with changes as in benchmarks/accuracy.py; `backbone` also accepts the ARCHITECTURES below.
Finished runs are not repeated.
"""

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import yaml
from accuracy import keep, measure, print_result, recipes_of
from keras import initializers, layers
from runs import ROOT, prepare

from leaf.experiments import with_settings
from leaf.models import build
from leaf.models.backbones import BACKBONES, IMAGENET_MEAN, IMAGENET_STD
from leaf.models.convnext import ATTO, rescaling
from leaf.models.layers import LayerScale
from leaf.store import read_array, read_table
from leaf.train.dataset import Batch
from leaf.train.learning_rate import make_schedule
from leaf.train.optimizer import compile_model, train_step

RESULTS = Path(__file__).with_name("scratch.json")
# leaves_by_plant has more images. With half of them in the test split, the two training sets have similar sizes.
DATASETS: dict[str, list[str]] = {"leaves_1041": [], "leaves_by_plant": ["test_size=0.5"]}
STEPS = 12  # timed training steps per recipe; the first two compile


def network(image: Any, block_norm: bool) -> Any:
    """Apply the default network with BatchNormalization after each convolution of the stem.

    Args:
        image: tensor (N, H, W, 3) in 0..255.
        block_norm: use BatchNormalization instead of LayerNormalization, except at the end.

    Returns:
        Pooled features (N, 320).
    """
    x = layers.Rescaling(*rescaling(IMAGENET_MEAN, IMAGENET_STD))(image)
    for number, filters in enumerate((32, ATTO.dims[0])):
        conv = {"use_bias": False, "kernel_initializer": "he_normal", "name": f"stem_conv_{number}"}
        x = layers.Conv2D(filters, 3, padding="same", **conv)(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"stem_batch_norm_{number}")(x)
        x = layers.Activation("relu", name=f"stem_relu_{number}")(x)
        x = layers.MaxPooling2D(2, name=f"stem_pool_{number}")(x)
    x = _norm(block_norm, "stem_norm")(x)
    for stage, (dim, depth) in enumerate(zip(ATTO.dims, ATTO.depths, strict=True)):
        if stage:
            x = _norm(block_norm, f"stage_{stage}_down_norm")(x)
            x = layers.Conv2D(dim, 2, strides=2, kernel_initializer=_initial(), name=f"stage_{stage}_down_conv")(x)
        for block in range(depth):
            x = _block(x, dim, block_norm, f"stage_{stage}_block_{block}")
    return _norm(False, "norm")(layers.GlobalAveragePooling2D(name="pool")(x))


def _block(inputs: Any, dim: int, block_norm: bool, name: str) -> Any:
    x = layers.DepthwiseConv2D(7, padding="same", depthwise_initializer=_initial(), name=f"{name}_depthwise")(inputs)
    x = _norm(block_norm, f"{name}_norm")(x)
    x = layers.Dense(4 * dim, kernel_initializer=_initial(), name=f"{name}_expand")(x)
    x = layers.Activation("gelu", name=f"{name}_gelu")(x)
    x = layers.Dense(dim, kernel_initializer=_initial(), name=f"{name}_project")(x)
    x = LayerScale(0.1, dim, name=f"{name}_scale")(x)
    return layers.Add(name=f"{name}_add")([inputs, x])


def _norm(batch: bool, name: str) -> layers.Layer:
    if batch:
        return layers.BatchNormalization(momentum=0.9, name=name)
    return layers.LayerNormalization(epsilon=1e-6, name=name)


def _initial() -> initializers.Initializer:
    return initializers.TruncatedNormal(stddev=0.02)


ARCHITECTURES = {"atto_bn_stem": partial(network, block_norm=False), "atto_bn": partial(network, block_norm=True)}
BACKBONES |= dict.fromkeys(
    ARCHITECTURES, BACKBONES["convnext_atto"]
)  # registered at import, because the training processes import this file
build._NETWORKS |= ARCHITECTURES


def development(data: Path, name: str, work: Path) -> Path:
    """Return the data set; for leaves_1041, write the images outside the published test split to a new file."""
    if name != "leaves_1041":
        return data / name
    params = with_settings(_defaults(), {"dataset": str(data / "leaves_1041.npz")})
    folder = prepare(work, params.model_dump(mode="json"))
    splits = read_table(folder / "data/split/splits.csv", ["image", "split"], text=["split"])
    kept = splits.loc[splits["split"] != "test", "image"].to_numpy()
    labels = read_table(folder / "data/cleaned/decisions.csv", ["image", "label"]).set_index("image")["label"]
    out = work / "leaves_1041.npz"
    names = np.array(params.classes)[labels.loc[kept].to_numpy()]
    np.savez(out, data=read_array(folder / "data/ingested/images.npy")[kept], labels=names)
    return out


def step_times(recipes: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the median CPU time of a training step of each recipe in ms, with random images; steps alternate."""
    random = np.random.default_rng(0)
    models = {}
    for recipe, settings in recipes.items():
        params = with_settings(_defaults(), settings)
        models[recipe] = build.build_model_from_params(params, 2), params
        compile_model(models[recipe][0], params, make_schedule(params, 2, STEPS, STEPS))
    times: dict[str, list[float]] = {recipe: [] for recipe in recipes}
    for _ in range(STEPS):
        for recipe, (model, params) in models.items():
            side, count = params.image_size, params.batch_size
            images = random.integers(0, 256, (count, side, side, 3)).astype(np.float32)
            batch = Batch(images, np.eye(2, dtype=np.float32)[random.integers(0, 2, count)], np.ones(count, np.float32))
            start = process_time()
            train_step(model, batch, params)
            times[recipe].append(process_time() - start)
    return {recipe: round(1000 * float(np.median(each[2:])), 1) for recipe, each in times.items()}


def _defaults() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the data sets")
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS), choices=DATASETS)
    parser.add_argument("--recipes", nargs="+", default=["default"], metavar="ROW", help="ROW or ROW+KEY=VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=1, help="parallel training runs, one core each")
    parser.add_argument("--work", type=Path, default=Path("build/scratch"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the results")
    options = parser.parse_args()
    options.folds, options.weights = 0, None
    options.work.mkdir(parents=True, exist_ok=True)
    for name in options.datasets:
        options.set = DATASETS[name]
        dataset = development(options.data.resolve(), name, options.work.resolve())
        result = measure(dataset, options)
        for recipe, time in step_times(recipes_of(options)).items():
            result["recipes"][recipe]["step_ms"] = time
        keep(result, options.results)
        print_result(result)


if __name__ == "__main__":
    main()
