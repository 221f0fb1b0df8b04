"""Measure the cost and savings of micro-batches in the course report's final model, without running a training step.

    KERAS_BACKEND=jax python benchmarks/micro_batch.py --photographs LEAVES.npz

Memory is the temporary memory that XLA reports for the loss and its gradients, compiled for a CPU. The model is
ConvNeXtLarge with the head of `report_final` at 96×96 and its first 90 operations frozen. Gradients are compared for
convnext_atto with that head on 512 images, in micro-batches and in one batch. In training mode, the head's
BatchNormalization uses the statistics of each micro-batch.
"""

from pathlib import Path
from typing import Any

import jax
import keras
import numpy as np
from images import ingest_images
from runs import ROOT, keep_table, table_parser

from leaf.experiments import experiment, with_settings
from leaf.models.build import build_model_from_params
from leaf.models.freezing import freeze_backbone

MEMORY = ((512, "float32", False), (64, "float32", False), (64, "float32", True))
MEMORY += ((64, "mixed_bfloat16", False), (64, "mixed_bfloat16", True))
PARTS = (128, 64, 32)


def network(**over: Any) -> tuple[keras.Model, Any]:
    """Return the partly frozen `report_final` network with random weights, and its parameters, changed by `over`."""
    row = experiment("report_final", ROOT / "experiments.yaml").set
    params = with_settings({}, {**row, "weights": "random", **over})
    model = build_model_from_params(params, 2)
    freeze_backbone(model, params.freeze_depth)
    return model, params


def gradients(model: keras.Model, training: bool) -> Any:
    """Return a compiled function that computes the gradients of the mean loss."""

    def loss(weights: Any, others: Any, images: Any, labels: Any) -> Any:
        logits, _ = model.stateless_call(weights, others, images, training=training)
        return keras.ops.mean(keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True))

    return jax.jit(jax.grad(loss))


def values(variables: Any) -> list[Any]:
    """Return the arrays of Keras variables."""
    return [variable.value for variable in variables]


def temporary_memory(backbone: str, size: int, images: int, precision: str, rematerialize: bool) -> float:
    """Return the memory of a step in GiB, excluding the weights and the gradients."""
    keras.backend.clear_session()
    over = {"precision": precision, "rematerialize": rematerialize, "image_size": size, "backbone": backbone}
    model, _ = network(**over, freeze_depth=90 if backbone == "convnext_large" else 9)
    shapes = jax.ShapeDtypeStruct((images, size, size, 3), "float32"), jax.ShapeDtypeStruct((images,), "int32")
    step = gradients(model, training=True)
    lowered = step.lower(values(model.trainable_variables), values(model.non_trainable_variables), *shapes)
    return float(lowered.compile().memory_analysis().temp_size_in_bytes / 2**30)


def apart(images: np.ndarray, labels: np.ndarray, part: int, training: bool) -> tuple[float, float]:
    """Return the relative distance between the accumulated and the full-batch gradient, and their cosine similarity."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(42)
    model, _ = network(backbone="convnext_atto", dropout=0.0, freeze_depth=0, image_size=images.shape[1])
    given = values(model.trainable_variables), values(model.non_trainable_variables)
    step = gradients(model, training)

    def flat(rows: slice) -> np.ndarray:
        found = step(*given, images[rows].astype(np.float32), labels[rows])
        return np.concatenate([np.ravel(each) for each in found]).astype(np.float64)

    whole = np.mean([flat(slice(start, start + 512)) for start in range(0, len(images), 512)], axis=0)
    parts = np.mean([flat(slice(start, start + part)) for start in range(0, len(images), part)], axis=0)
    length = np.linalg.norm(whole)
    return float(np.linalg.norm(parts - whole) / length), float(parts @ whole / length / np.linalg.norm(parts))


def main() -> None:
    parser = table_parser(__doc__)
    parser.add_argument(
        "--photographs", type=Path, help="an .npz file or a folder; if omitted, only memory is measured"
    )
    parser.add_argument("--tiny", action="store_true", help="use a small network and small images")
    options = parser.parse_args()
    backbone, size, divisor = ("convnext_atto", 32, 8) if options.tiny else ("convnext_large", 96, 1)
    rows = [
        [str(images // divisor), precision, str(again).lower(), f"{memory:.3g} GiB"]
        for images, precision, again in MEMORY
        for memory in [temporary_memory(backbone, size, images // divisor, precision, again)]
    ]
    keep_table("memory", ["micro-batch", "precision", "`rematerialize`", "temporary memory"], rows, options.record)
    if options.photographs:
        images, ingested = ingest_images(options.photographs, size)
        chosen = np.random.default_rng(0).permutation(len(images))[: 512 // divisor]
        images, labels = images[chosen], ingested.index["label"].to_numpy(np.int32)[chosen]
        rows = []
        for part in PARTS:
            for mode, training in (("training", True), ("inference", False)):
                share, cosine = apart(images, labels, part // divisor, training)
                parts = f"{len(images) * divisor // part} × {part // divisor}"
                rows.append([parts, mode, f"{share:.1e}", f"{cosine:.4f}"])
        columns = ["micro-batches", "BatchNormalization mode", "relative distance", "cosine similarity"]
        keep_table("gradients", columns, rows, options.record)


if __name__ == "__main__":
    main()
