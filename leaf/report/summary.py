"""Contents of the one-page summary and the model card: the model, its data, results by class and limitations."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leaf.finished_run import Run
from leaf.report.charts import percent
from leaf.report.counts import REASONS, split_sizes
from leaf.report.results import baselines, lowest_recall, scored_split
from leaf.report.svg import plural


def card(run: Run) -> dict[str, Any]:
    """Return the texts and the table used in both documents."""
    split, block = scored_split(run.scores)
    names = run.names
    listed = f"{len(names)} classes" if len(names) > 4 else ", ".join(names[:-1]) + f" or {names[-1]}"
    return {
        "title": f"Leaf image classifier: {listed}",
        "split": split,
        "date": run.facts.get("Date", "").partition(",")[0],
        "commit": run.facts.get("Commit", "").partition(",")[0],
        "result": _result(split, block),
        "model": _model(run),
        "baseline": _baseline(run, block),
        "data": _data(run),
        "classes": _classes(run, block),
        "limits": _limits(run, split, block),
    }


def _result(split: str, block: Mapping[str, Any]) -> str:
    if block.get("accuracy") is None:
        return "No scores."
    words = (
        f"Accuracy {_with_interval(block, 'accuracy', '95% CI ')} on {plural(int(block['images']), f'{split} image')}"
    )
    if block.get("balanced_accuracy") is not None:
        words += f"; balanced accuracy {percent(block['balanced_accuracy'])}"
    return words + "."


def _with_interval(block: Mapping[str, Any], key: str, before: str = "") -> str:
    if block.get(key) is None:
        return "–"
    low, high = block.get(f"{key}_low"), block.get(f"{key}_high")
    return percent(block[key]) + ("" if low is None or high is None else f" ({before}{100 * low:.1f}–{percent(high)})")


def weights(run: Run) -> str:
    """Describe the initial weights: a checkpoint's revision and license, a file name, or the parameter value."""
    if record := run.training.get("weights"):
        return f"{record['name']}, revision {record['revision']}, license {record['license']}"
    return Path(str(run.params.get("weights", ""))).name


def _model(run: Run) -> str:
    count, height, width = run.training.get("parameters"), *run.images.shape[1:3]
    start = f"with pretrained weights ({weights(run)})"
    if run.params.get("weights") == "random":
        start = "trained from scratch"
    return (
        f"{run.training.get('backbone') or run.params.get('backbone')}{f', {count:,} parameters' if count else ''}, "
        f"{start}. Input: one color image, resized to {width} × {height} pixels. Output: a probability for each class."
    )


def _baseline(run: Run, block: Mapping[str, Any]) -> str:
    best = max(baselines(run.scores), key=lambda entry: entry.value, default=None)
    if best is None or block.get("accuracy") is None:
        return ""
    beaten = (block.get("accuracy_low") or 0) > best.value
    words = f"Best baseline on the same images: {best.name.lower()}, {percent(best.value)}."
    return words if beaten else f"{words} The interval of the model does not exclude it."


def _data(run: Run) -> str:
    removed = run.decisions.loc[run.decisions["kept"] != 1, "reason"].value_counts()
    name = Path(str(run.params.get("dataset", ""))).name
    words = f"{name}: {plural(len(run.index), 'image')}, {len(run.kept()):,} kept"
    if len(removed):
        parts = [f"{count:,} {REASONS.get(str(reason), str(reason)).lower()}" for reason, count in removed.items()]
        words += f" (removed: {', '.join(parts)})"
    sizes = ", ".join(f"{count:,} {name}" for name, count in split_sizes(run).items())
    made = f" SMOTE added {plural(len(run.synthetic), 'training image')}." if len(run.synthetic) else ""
    return f"{words}. Split: {sizes}.{made}"


def _classes(run: Run, block: Mapping[str, Any]) -> list[list[str]]:
    train = run.splits.loc[run.splits["split"] == "train", "image"]
    counts = run.labels().reindex(train).value_counts()
    rows = []
    for label, (name, each) in enumerate(zip(run.names, block.get("classes") or [{}] * len(run.names), strict=True)):
        recall, precision = _with_interval(each, "recall"), each.get("precision")
        cells = [recall, "–" if precision is None else percent(precision)]
        rows.append([name, f"{counts.get(label, 0):,}", f"{each.get('images', 0):,}", *cells])
    return rows


def _limits(run: Run, split: str, block: Mapping[str, Any]) -> list[str]:
    lines = [
        "It always predicts one of its classes and does not recognize other diseases, plants or damage.",
        "The accuracy holds for images like those of the data set. Expect less with another camera, background, place "
        "or crop; leaf audit measures how much less.",
    ]
    if lowest := lowest_recall(run, block):
        recall, name = lowest
        lines.append(f"Weakest class: {percent(1 - recall)} of the {name} {split} images are predicted as another class.")
    if split == "validation":
        lines.append("There is no test split. Validation images selected the model, so its accuracy is optimistic.")
    if not run.index["group"].fillna("").astype(str).ne("").any():
        lines.append(
            "No groups were given: if several images show the same leaf, the accuracy is optimistic unless cleaning "
            "found them."
        )
    return [*lines, "A prediction is not a diagnosis. Check uncertain and consequential predictions by eye."]
