"""Create the tables of a finished run without running the pipeline.

All values depend only on the seed. Options of `tables` leave parts out; `write` writes the tables to a project folder.
"""

import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd

from leaf import params as schema

CLASSES = ["healthy", "unhealthy"]


def drawn(count: int = 150, side: int = 48, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return shuffled images, uint8, and labels: `count` leaves, two cartoons nine times each, and ten copied leaves.

    One of the copies has the wrong label.
    """
    random = np.random.default_rng(seed)
    labels = (random.random(count) < 0.4).astype(int)
    leaves = np.stack([leaf(random, side, label) for label in labels])
    cartoons = np.stack([np.full((side, side, 3), 250), np.full((side, side, 3), 40)])
    cartoons[0, side // 4 : -side // 4, side // 4 : -side // 4] = (230, 40, 40)
    cartoons[1, side // 3 : -side // 3] = (90, 120, 250)
    copies = random.choice(count, 10, replace=False)
    images = np.concatenate([leaves, np.repeat(cartoons, 9, 0), leaves[copies]]).astype(np.uint8)
    copied = labels[copies].copy()
    copied[0] = 1 - copied[0]
    all_labels = np.concatenate([labels, np.repeat([1, 0], 9), copied])
    order = random.permutation(len(images))
    return images[order], all_labels[order]


def leaf(random: np.random.Generator, side: int, label: int) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    turn, wide = random.uniform(0, np.pi), random.uniform(0.25, 0.45)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    inside = (np.abs(v) < wide * (1 - u**2)) & (np.abs(u) < 0.9)
    picture = np.where(inside[..., None], (70, 140 + random.uniform(-20, 20), 60), random.uniform(150, 220, 3))
    for _ in range(7 if label else 0):
        spot = (x - random.uniform(-0.5, 0.5)) ** 2 + (y - random.uniform(-0.5, 0.5)) ** 2 < 0.012
        picture = np.where((spot & inside)[..., None], (130, 90, 40), picture)
    return np.clip(picture + random.normal(0, 6, (side, side, 3)), 0, 255)


def tables(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int = 1,
    test: bool = True,
    epochs: int = 24,
    smote: bool = True,
    near: int = 5,
    aligned: int = 3,
    overrides: int = 2,
    folders: bool = True,
    quality: float = 1.6,
    sources: list[str] | None = None,
    params: dict | None = None,
) -> dict:
    """Return the fields of a `leaf.finished_run.Run` as keyword arguments."""
    random = np.random.default_rng(seed)
    values = {key: row["default"] for key, row in schema.keys().items()}
    values |= {"dropout": 0.2, "balance": "smote" if smote else "none", "learning_rate.max": 5e-4} | (params or {})
    number = np.arange(len(images))
    hashes = [hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).hexdigest() for image in images]
    index = pd.DataFrame(
        {
            "image": number,
            "source": sources or [str(place) for place in number],
            "label": labels,
            "group": "",
            "split": "",
            "hash": hashes,
            "file_hash": hashes,
            "flags": np.where(random.random(len(number)) < 0.03, "dark blurred", ""),
            "width": np.where(number < 3, 4000, 640),
            "height": 480,
        }
    )
    decisions, distances, pairs = _clean(images, index, random, near, aligned, overrides)
    splits = _splits(decisions, random, test)
    synthetic, made = _smote(images, decisions, splits, random) if smote else (_no_synthetic(), images[:0])
    history = _history(epochs, random)
    predictions = _predictions(decisions, splits, random, quality)
    scores = _scores(predictions, splits, labels, test, folders)
    gallery, heatmaps = _gallery(predictions, random)
    best = history["validation_accuracy"]
    best_epoch = int(history["epoch"].iloc[int(best.argmax())])
    training = {
        "backbone": values["backbone"],
        "parameters": 3_374_562,
        "trainable_parameters": 3_373_922,
        "epochs": epochs,
        "best_epoch": best_epoch,
        "best_validation_accuracy": float(best.max()),
        "stopped": "early" if epochs < 40 and epochs > 1 else "epochs",
        "model_sha256": hashlib.sha256(b"model").hexdigest(),
        "seed": 42,
        "image_size": images.shape[1],
        "classes": CLASSES,
        "steps_per_epoch": 20,
        "versions": {"python": "3.12.3", "keras": "3.15.1", "backend": "tensorflow 2.21.0", "numpy": "2.4.6"},
    }
    return {
        "params": {**values, "classes": values["classes"]},
        "images": images,
        "index": index,
        "decisions": decisions,
        "splits": splits,
        "history": history,
        "training": training,
        "scores": scores,
        "distances": distances,
        "pairs": pairs,
        "synthetic": synthetic,
        "synthetic_images": made,
        "predictions": predictions,
        "gallery": gallery,
        "heatmaps": heatmaps,
        "files": {"data/ingested/index.csv": hashlib.sha256(b"index").hexdigest()},
    }


def write(project: Path, made: dict) -> None:
    """Write the tables to a project folder, as the earlier stages do."""
    names = {
        "index": "data/ingested/index.csv",
        "decisions": "data/cleaned/decisions.csv",
        "distances": "data/cleaned/distances.csv",
        "pairs": "data/cleaned/pairs.csv",
        "splits": "data/split/splits.csv",
        "synthetic": "data/balanced/index.csv",
        "history": "models/history.csv",
        "predictions": "data/scored/predictions.csv",
        "gallery": "data/scored/gallery.csv",
    }
    arrays = {
        "images": "data/ingested/images.npy",
        "synthetic_images": "data/balanced/images.npy",
        "heatmaps": "data/scored/heatmaps.npy",
    }
    jsons = {"training": "models/run.json", "scores": "data/scored/scores.json"}
    for name in (names | arrays | jsons).values():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
    for field, name in names.items():
        made[field].to_csv(project / name, index=False, lineterminator="\n")
    for field, name in arrays.items():
        np.save(project / name, made[field])
    for field, name in jsons.items():
        (project / name).write_text(json.dumps(made[field]), encoding="utf-8")


def _clean(images, index, random, near, aligned, overrides):
    flat = images.reshape(len(images), -1).astype(np.float32)
    groups = index.groupby("hash")["image"].apply(list)
    copies = {members[0]: members for members in groups if len(members) > 1}
    references = sorted(first for first, members in copies.items() if len(members) >= 8)
    rows, pairs = [], []
    reason = dict.fromkeys(index["image"], "")
    copy_of = dict.fromkeys(index["image"], "")
    for reference in references:
        distance = ((flat - flat[reference]) ** 2).mean(1)
        order = np.lexsort((index["image"], distance))
        for rank, image in enumerate(order, start=1):
            rows.append((str(reference), rank, image, float(distance[image]), int(distance[image] == 0)))
        reason |= dict.fromkeys(copies[reference], "outlier")
    for first, members in copies.items():
        pairs += [(first, other, "exact", 0.0, "", "") for other in members[1:]]
        if first not in references:
            for other in members[1:]:
                reason[other], copy_of[other] = "duplicate", first
    free = [image for image, why in reason.items() if not why and image not in copies]
    chosen = random.choice(free, (near + aligned, 2), replace=False)
    for place, (one, other) in enumerate(np.sort(chosen, 1)):
        if place < near:
            pairs.append((one, other, "near", round(float(random.uniform(8, 140)), 3), "", ""))
            reason[other], copy_of[other] = "near_duplicate", one
        else:
            pairs.append((one, other, "aligned", 412.5, "affine", round(float(random.uniform(8, 120)), 3)))
    label = index.set_index("image")["label"].to_dict()
    for place, image in enumerate(random.choice([i for i, why in reason.items() if not why], overrides, replace=False)):
        reason[image] = "override" if place % 2 else "relabelled"
        if place % 2 == 0:
            label[image] = 1 - label[image]
    decisions = pd.DataFrame(
        {
            "image": index["image"],
            "label": list(label.values()),
            "kept": [int(why in ("", "relabelled")) for why in reason.values()],
            "reason": list(reason.values()),
            "reference": "",
            "distance": "",
            "group": index["image"],
            "copy_of": list(copy_of.values()),
        }
    )
    distances = pd.DataFrame(rows, columns=["reference", "rank", "image", "distance", "outlier"])
    return (
        decisions,
        distances,
        pd.DataFrame(pairs, columns=["image", "other", "kind", "mse", "transform", "aligned_mse"]).assign(
            mse=lambda table: pd.to_numeric(table["mse"]), aligned_mse=lambda table: pd.to_numeric(table["aligned_mse"])
        ),
    )


def _splits(decisions, random, test):
    kept = decisions.loc[decisions["kept"] == 1, "image"].to_numpy()
    draw = random.random(len(kept))
    split = np.where(draw < 0.65, "train", np.where(draw < 0.8, "validation", "test" if test else "train"))
    return pd.DataFrame({"image": kept, "split": split})


def _no_synthetic():
    return pd.DataFrame(columns=["image", "label", "parent", "neighbour", "weight"])


def _smote(images, decisions, splits, random):
    label = decisions.set_index("image")["label"]
    train = splits.loc[splits["split"] == "train", "image"].to_numpy()
    counts = np.bincount(label[train], minlength=2)
    minority = int(counts.argmin())
    members = train[label[train].to_numpy() == minority]
    rows, made = [], []
    for place in range(int(counts.max() - counts.min())):
        parent, neighbour = random.choice(members, 2, replace=False)
        weight = float(random.uniform(0.05, 0.95))
        made.append(images[parent] * (1 - weight) + images[neighbour] * weight)
        rows.append((place, minority, parent, neighbour, weight))
    table = pd.DataFrame(rows, columns=["image", "label", "parent", "neighbour", "weight"])
    return table, np.array(made).reshape(-1, *images.shape[1:]).astype(images.dtype)


def _history(epochs, random):
    epoch = np.arange(1, epochs + 1)
    rise = 1 - np.exp(-epoch / 6)
    wobble = random.normal(0, 0.012, (2, epochs))
    return pd.DataFrame(
        {
            "epoch": epoch,
            "loss": 0.68 - 0.5 * rise + wobble[0],
            "accuracy": 0.6 + 0.36 * rise + wobble[1],
            "validation_loss": 0.69 - 0.36 * rise + random.normal(0, 0.03, epochs) + 0.004 * epoch,
            "validation_accuracy": 0.6 + 0.27 * rise + random.normal(0, 0.02, epochs),
            "learning_rate": 1e-5 + (5e-4 - 1e-5) * (1 - np.abs((epoch % 8) / 4 - 1)),
            "phase": "train",
        }
    )


def _predictions(decisions, splits, random, quality):
    label = decisions.set_index("image")["label"]
    held = splits[splits["split"] != "train"].reset_index(drop=True)
    truth = label[held["image"]].to_numpy()
    logit = random.normal(0, 1.3, len(held)) + quality * (2 * truth - 1)
    probability = 1 / (1 + np.exp(-logit))
    return held.assign(label=truth, probability=probability, predicted=(probability >= 0.5).astype(int))


def _scores(predictions, splits, labels, test, folders):
    blocks = {name: _block(table) for name, table in predictions.groupby("split")}
    judged = blocks["test" if test else "validation"]
    majority = float(max(np.mean(labels == 0), np.mean(labels == 1)))
    baseline = {"accuracy": 0.8, "accuracy_low": 0.68, "accuracy_high": 0.85, "validation_accuracy": 0.75}
    names = ["apple", "bean", "strawberry"]
    by_folder = [
        {"folder": name, "images": 40 + 7 * place, "accuracy": value, "low": value - 0.09, "high": value + 0.05}
        for place, (name, value) in enumerate(zip(names, (0.91, 0.78, 0.88), strict=True))
    ]
    return {
        "threshold": 0.5,
        "threshold_source": "given",
        "temperature": 1.2,
        "splits": {"validation": blocks["validation"], "test": blocks.get("test")},
        "baseline": {
            "majority": baseline | {"accuracy": majority, "validation_accuracy": majority},
            "joint_histogram": baseline | {"accuracy": 0.791},
            "histogram": baseline | {"accuracy": 0.747, "validation_accuracy": 0.7, "images": judged["images"]},
            "tuned_color": baseline,
        },
        "by_folder": by_folder if folders else [],
        "note": "" if test else "No test split: these scores are optimistic.",
    }


def _block(table):
    truth, probability = table["label"].to_numpy(), table["probability"].to_numpy()
    predicted = table["predicted"].to_numpy()
    confusion = [[int(np.sum((truth == t) & (predicted == p))) for p in (0, 1)] for t in (0, 1)]
    order = np.argsort(-probability)
    found = np.cumsum(truth[order]) / max(truth.sum(), 1)
    alarms = np.cumsum(1 - truth[order]) / max((1 - truth).sum(), 1)
    precision = np.cumsum(truth[order]) / np.arange(1, len(truth) + 1)
    accuracy = float(np.mean(truth == predicted))
    area = float(np.trapezoid(np.r_[0, found], np.r_[0, alarms]))
    half = 1.96 * np.sqrt(accuracy * (1 - accuracy) / len(truth))
    confidence = np.maximum(probability, 1 - probability)
    edges = np.linspace(0.5, 1, 11)
    bins = []
    for low, high in itertools.pairwise(edges):
        inside = (confidence >= low) & (confidence < high)
        empty = not inside.any()
        bins.append(
            {
                "low": float(low),
                "high": float(high),
                "images": int(inside.sum()),
                "confidence": None if empty else float(confidence[inside].mean()),
                "accuracy": None if empty else float((truth == predicted)[inside].mean()),
            }
        )
    classes = [
        {
            "name": name,
            "images": sum(row),
            "recall": row[label] / max(sum(row), 1),
            "recall_low": 0.5,
            "recall_high": 1.0,
            "precision": row[label] / max(sum(each[label] for each in confusion), 1),
        }
        for label, (name, row) in enumerate(zip(CLASSES, confusion, strict=True))
    ]
    return {
        "images": len(table),
        "groups": len(table),
        "classes": classes,
        "accuracy": accuracy,
        "accuracy_low": accuracy - half,
        "accuracy_high": min(accuracy + half, 1.0),
        "balanced_accuracy": accuracy - 0.01,
        "precision": 0.83,
        "recall": 0.81,
        "f1": 0.82,
        "roc_auc": area,
        "roc_auc_low": area - 0.03,
        "roc_auc_high": min(area + 0.02, 1.0),
        "log_loss": float(-np.mean(np.log(np.where(truth == 1, probability, 1 - probability)))),
        "brier": float(np.mean((probability - truth) ** 2)),
        "calibration_error": 0.042,
        "calibration_error_limit": 0.05,
        "confusion": confusion,
        "worst_pairs": [],
        "roc": {"fpr": [0.0, *alarms.tolist()], "tpr": [0.0, *found.tolist()]},
        "precision_recall": {"recall": found.tolist(), "precision": precision.tolist()},
        "calibration": bins,
    }


def _gallery(predictions, random):
    judged = predictions[predictions["split"] == ("test" if "test" in set(predictions["split"]) else "validation")]
    wrong = judged[judged["label"] != judged["predicted"]]
    surest = wrong.iloc[np.argsort(-np.abs(wrong["probability"] - 0.5).to_numpy())].head(16)
    unsure = judged.iloc[np.argsort(np.abs(judged["probability"] - 0.5).to_numpy())].head(12)
    others = surest.assign(kind="runner_up", shown=1 - surest["predicted"])
    rows = pd.concat([surest.assign(kind="mistake"), unsure.assign(kind="uncertain")]).assign(
        shown=lambda table: table["predicted"]
    )
    gallery = pd.concat([rows, others])[["image", "split", "kind", "shown"]].reset_index(drop=True)
    gallery.insert(0, "row", np.arange(len(gallery)))
    y, x = np.mgrid[0:1:12j, 0:1:12j]
    centres = random.uniform(0.2, 0.8, (len(gallery), 2))
    heat = [np.exp(-((y - a) ** 2 + (x - b) ** 2) / 0.06) for a, b in centres]
    return gallery, np.array(heat, np.float32).reshape(-1, 12, 12)
