"""Write the generated pages and tables in docs/, and params.yaml.

python docs/generate.py            # from leaf/params.py, experiments.yaml and the results in benchmarks/
python docs/generate.py --params   # also params.yaml, with the schema's defaults
"""

import argparse
import functools
import itertools
import json
import math
import re
import statistics
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml

from leaf import params
from leaf.evaluate.statistics import welch_test
from leaf.experiments import Experiment, read_experiments
from leaf.models.backbones import is_detector

ROOT = Path(__file__).parent.parent
SECTIONS = {
    "dataset": "data",
    "image_size": "ingest",
    "references": "clean",
    "validation_size": "split",
    "balance": "balance",
    "backbone": "train: network",
    "batch_size": "train: optimization",
    "learning_rate": "train: learning rate, set before every update",
    "augmentation": "train: augmentation",
    "threshold": "evaluate",
}
# Rows of benchmarks/results.json in page order: what was measured, and what it is compared with.
CLAIMS = {
    "clean_cleanvision": (
        "`clean`: exact duplicates, near duplicates, outliers; 5,200 images",
        "cleanvision: exact and near duplicates",
    ),
    "clean_default": (
        "`clean` with default parameters, including crops of one photo",
        "cleanvision: exact and near duplicates",
    ),
    "clean_report": ("`clean`, 5,200 images", "the loops of the course report"),
    "clean_scale": ("`clean`, time per image at the largest size", "time per image at 5,000 images"),
    "balance": ("`balance`, 4,350 images", "imbalanced-learn's SMOTE"),
    "ingest_npz": ("ingest an .npz file, 5,200 images", "NumPy load and cast"),
    "ingest_folder": ("ingest a folder of JPEG files", "a Pillow loop"),
    "ingest_grown": ("ingest a folder with one added file", "decoding all files again"),
    "train_step_keras": ("training step, `convnext_tiny`", "keras.applications on TensorFlow"),
    "train_step_convnext_tiny": ("training step, `convnext_tiny`", "the same network in PyTorch"),
    "train_step_convnext_atto": ("training step, `convnext_atto`", "the same network in PyTorch"),
    "epoch": ("one epoch of `train`", "the same steps on a preloaded batch"),
    "pipeline": ("default run: all stages except training", "the whole run"),
    "pipeline_idle": ("`dvc repro` without changes", "an empty pipeline with the same number of stages"),
    "pipeline_idle_shape": ("`dvc repro` without changes", "an empty pipeline with leaf's modules and parameters"),
    "probe": ("`probe` on 1,000 images, all stages", "a short script with Keras and scikit-learn"),
    "probe_again": ("`probe` with a different split, features cached", "the same script"),
    "predict": ("`leaf predict`, 1,000 files, without startup", "the network alone"),
    "page": ("one image through `leaf serve`, median", "a limit of 10 ms"),
    "page_p99": ("one image through `leaf serve`, 99th percentile", "a limit of 25 ms"),
    "serve": ("one of eight concurrent images through `leaf serve`", "the network alone, eight images"),
    "gpu_convnext_tiny": ("GPU training step, `convnext_tiny`, bfloat16", "timm, torch.compile"),
    "gpu_convnext_large": ("GPU training step, `convnext_large`, bfloat16", "timm, torch.compile"),
}
MILLION = 1_000_000


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]


def scalar(value: Any) -> str:
    """Format a value as YAML on one line."""
    if isinstance(value, float):
        return yaml.safe_dump(value).split("\n")[0] if "e" not in repr(value) else f"{value:.10f}".rstrip("0")
    return yaml.safe_dump(value, default_flow_style=True).split("\n")[0]


def params_yaml() -> str:
    """Return params.yaml with all defaults and one commented line per key."""
    lines = [
        "# All parameters of the pipeline. Edit them here, or set one for a single run: dvc exp run -S dropout=0.2"
    ]
    group = ""
    for key, entry in params.keys().items():
        head, _, name = key.partition(".")
        if head in SECTIONS and head != group:
            lines += ["", f"# {SECTIONS[head]}"]
        if name and head != group:
            lines.append(f"{head}:")
        group = head
        line = f"  {name}: " if name else f"{head}: "
        lines.append(f"{line}{scalar(entry['default'])}".ljust(32) + f"  # {entry['why']}. Valid: {entry['valid']}")
    return "\n".join(lines) + "\n"


def parameters_md() -> str:
    """Return docs/parameters.md, a table of all keys."""
    lines = [
        "# Every parameter",
        "",
        "Set a parameter in `params.yaml`, or set it for a single run with `dvc exp run -S key=value`.",
        "",
        "This page is generated from `leaf/params.py` by `python docs/generate.py`.",
        "",
    ]
    rows = [
        (f"`{key}`", f"`{json.dumps(entry['default'])}`".replace("|", "\\|"), str(entry["valid"]), str(entry["why"]))
        for key, entry in params.keys().items()
    ]
    return "\n".join([*lines, *table(("key", "default", "valid", "description"), rows)]) + "\n"


def filled(page: str, **tables: str) -> str:
    """Return a page in which `tables` and those of benchmarks/tables.json fill the parts between marker comments."""
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    kept = {
        name: "\n".join([*table(each["columns"], each["rows"]), "", _source(each), ""])
        for name, each in measured("tables").items()
        if f"<!-- {name} -->\n" in text
    }
    for name, content in {**kept, **tables}.items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->\n")
        text = before + begin + content + end + after
    return text


def measured(name: str) -> Any:
    """Load benchmarks/NAME.json. Raise SystemExit if a result's commit is not in the history."""
    found = json.loads((ROOT / f"benchmarks/{name}.json").read_text(encoding="utf-8"))
    results = found if isinstance(found, list) else [found] if "versions" in found else found.values()
    for result in results:
        check_commit(result.get("commit") or result.get("recorded"), name)
    return found


@functools.cache
def check_commit(commit: str | None, name: str) -> None:
    """Raise SystemExit if `commit` is not in the history. Skip the check in a shallow clone or outside git."""

    def git(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)

    if git("rev-parse", "--is-shallow-repository").stdout.strip() != "false":
        return
    if not commit or git("merge-base", "--is-ancestor", commit, "HEAD").returncode:
        raise SystemExit(
            f"benchmarks/{name}.json: commit {commit} is not in the history. Measure again and commit the result."
        )


def experiments_md() -> str:
    """Return docs/experiments.md."""
    return filled(
        "experiments",
        rows=rows_table(detectors=False),
        detectors=rows_table(detectors=True),
        accuracy="\n".join([results_of("accuracy"), *chosen_elsewhere(measured("accuracy"))]),
        dropout=dropout_table(),
        smote=results_of("smote") + "\n",
    )


def results_of(name: str) -> str:
    """Format all results in a file written by benchmarks/accuracy.py as Markdown."""
    return "\n".join(line for result in measured(name) for line in accuracy_lines(result))


def accuracy_lines(result: dict[str, Any]) -> list[str]:
    """Format one result of benchmarks/accuracy.py as Markdown lines."""
    seeds = f"seed{'s' if len(result['seeds']) > 1 else ''} {', '.join(map(str, result['seeds']))}"
    baselines = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in result["baselines"].items())
    tested = f"each tested once in {result['folds']} folds" if result["folds"] else "one test split"
    settings = " and ".join(f"`{key}={value}`" for key, value in result["set"].items())
    changes = f" with {settings}" if settings else ""
    groups = f" in {result['groups']} groups" if result["groups"] < result["images"] else ""
    head = f"**{result['dataset']}**{changes}: {result['images']} images{groups}, {tested}; {seeds} "
    head += f"(baselines: {baselines}):"
    columns = [
        "recipe",
        "mean test accuracy (95% CI)",
        "test accuracy per seed",
        "mean log loss",
        "validation accuracy",
    ]
    columns += ["standard deviation"] * (len(result["seeds"]) >= 5)
    columns += ["CPU time per step"] * any("step_ms" in each for each in result["recipes"].values())
    rows = []
    for name, each in result["recipes"].items():
        mean, loss = (sum(each[key]) / len(each[key]) for key in ("accuracy", "log_loss"))
        interval = " ({:.3f} to {:.3f})".format(*each["interval"]) if "interval" in each else ""
        accuracies, validation = (", ".join(f"{x:.3f}" for x in each[key]) for key in ("accuracy", "validation"))
        row = [name, f"{mean:.3f}{interval}", accuracies, f"{loss:.3f}", validation]
        if "standard deviation" in columns:
            row.append(f"{statistics.stdev(each['accuracy']):.3f}" if len(each["accuracy"]) > 1 else "")
        if "step_ms" in each:
            row.append(f"{each['step_ms']:.0f} ms")
        rows.append(row)
    if len(result["seeds"]) == 1:
        columns[1:4] = ["test accuracy (95% CI)", "log loss"]
        rows = [[*row[:2], *row[3:]] for row in rows]
    sentences = [difference(each, result) for each in [*result["verdicts"], result["two_seeds"]] if each]
    listed = [f"- {sentence}" for sentence in sentences]
    return [head, "", *table(columns, rows), "", *listed, "", _source(result), ""]


_COMPARISON = re.compile(  # the output of leaf compare
    r"The (?P<kind>recipe|trained model)s? (?P<b>\S+(?: with seed \d+)?) "
    r"(?:is (?:better|worse) than the (?P=kind)|and) (?P<a>\S+(?: with seed \d+)?) "
    r"(?:are not distinguishable )?on these \d+ images: accuracy (?P<points>.*)\."
)
_EARLIER = re.compile(  # the former output of leaf compare, which did not account for groups and seeds
    r"(?P<b>\S+(?: with seed \d+)?) (?:is (?:better|worse) than|and) (?P<a>\S+(?: with seed \d+)??)"
    r"(?: are not distinguishable on these \d+ images)?: (?P<gap>\S+) points of accuracy "
    r"\(95 %: (?P<low>\S+) to (?P<high>\S+)\)"
)


def difference(sentence: str, result: dict[str, Any]) -> str:
    """Return a comparison as a difference; with the former format, add Welch's t-test over several seeds."""
    if found := _COMPARISON.match(sentence):
        single = found["kind"] == "trained model" and " seed " not in found["b"]
        runs = " (for these trained models only)" if single else ""
        return f"{found['b']} − {found['a']}: {found['points']}{runs}."
    found = _EARLIER.match(sentence)
    if not found:
        return sentence
    seeds = [result["recipes"].get(found[name], {}).get("accuracy", []) for name in "ab"]
    p = welch_test(*map(np.array, seeds))
    test = "" if math.isnan(p) else f", Welch's t-test: p = {p:.2g}"
    return f"{found['b']} − {found['a']}: {found['gap']} points (95% CI {found['low']} to {found['high']}){test}."


def _source(result: dict[str, Any]) -> str:
    if "commit" in result:
        return f"Measured at commit {result['commit'][:8]} by `{result['command']}`."
    before = f"Measured by `{result['command']}` and recorded" if "command" in result else "Recorded"
    return f"{before} in commit {result['recorded'][:8]} (the measured code version is unknown)."


def dropout_table() -> str:
    """Return the tables on input dropout: accuracy of three networks, and feature shift."""
    columns = (
        "dropout in training",
        "shift, clean images",
        "spread, clean images",
        "accuracy, clean images",
        "shift, images with dropout",
        "accuracy, images with dropout",
    )
    rows = []
    for row in measured("dropout_features")["rows"]:
        clean, dropped = row["clean"], row["dropped"]
        on_clean = (f"{clean['shift']:.2f}", f"{clean['spread']:.2f}", f"{clean['accuracy']:.3f}")
        rows.append((str(row["dropout"]), *on_clean, f"{dropped['shift']:.2f}", f"{dropped['accuracy']:.3f}"))
    return "\n".join([results_of("dropout"), *table(columns, rows)]) + "\n"


def chosen_elsewhere(results: list[dict[str, Any]]) -> list[str]:
    """Return a table per set of recipes: the recipe selected on one data set, and its accuracy on another data set."""
    tables: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    alike = [result for result in results if result["folds"] and not result["set"]]
    for one, other in itertools.permutations(alike, 2):
        if one["kinds"] != other["kinds"]:
            continue
        for names in (kind for kind in one["kinds"] if len(kind) > 1):
            losses = {name: sum(one["recipes"][name]["log_loss"]) for name in names}
            there = {name: statistics.mean(other["recipes"][name]["accuracy"]) for name in names}
            chosen, best = min(losses, key=losses.__getitem__), max(there, key=there.__getitem__)
            accuracies = (f"{there[chosen]:.3f}", f"{there[best]:.3f} ({best})")
            tables.setdefault(tuple(names), []).append((one["dataset"], chosen, other["dataset"], *accuracies))
    columns = ("selected on", "recipe", "tested on", "accuracy", "best accuracy and its recipe")
    lines = []
    for names, rows in tables.items():
        listed = ", ".join(f"`{name}`" for name in names)
        title = f"The recipe with the lowest log loss on one data set, tested on another (candidates: {listed}):"
        lines += [title, "", *table(columns, rows), ""]
    return lines


def rows_table(detectors: bool) -> str:
    """Return the table of the detectors or of all other experiments, with their results from benchmarks/rows.py."""
    rows = {
        name: row
        for name, row in read_experiments(ROOT / "experiments.yaml").items()
        if is_detector(row.set.get("backbone", params.keys()["backbone"]["default"])) == detectors
    }
    found: dict[str, list[dict[str, Any]]] = {}
    for result in measured("rows"):
        if result["row"] in rows:
            found.setdefault(result["row"], []).append(result)
    cells: list[list[str]] = []
    for name, row in rows.items():
        head = [f"`{name}`", row.why, str(row.claimed or "")]
        for result in found.get(name, []):
            cells.append([*head, *_figures(result)])
            head = [""] * 3
        if name not in found:
            cells.append([*head, "", f"not run{_reason(row)}", "", "", ""])
    scores = ("accuracy (95% CI)", "ROC AUC (95% CI)", "ROC AUC with mean image", "validation accuracy")
    columns = ["experiment", "description", "claimed", "test images", *scores]
    lines = []
    if not detectors:  # all rows have the same test images and no mean image
        [tested] = {row[3] for row in cells} - {""}
        lines += [f"**{tested.replace(', ', '**, ')} test images:", ""]
        columns, *cells = ([*row[:3], *row[4:6], row[7]] for row in (columns, *cells))
    lines += table(columns, cells)
    if missing := len(rows) - len(found):
        lines += ["", f"Not run: {missing} of {len(rows)} experiments."]
    sources: dict[str, list[str]] = {}
    for name, results in found.items():
        result = results[0]
        source = f"Measured at commit {result['commit'][:8]}" if "commit" in result else _source(result).rstrip(".")
        sources.setdefault(source, []).append(f"`{name}`")
    for source, names in sources.items():
        lines += ["", f"{source}: {', '.join(names)}."]
    return "\n".join(lines) + "\n"


def _figures(result: dict[str, Any]) -> tuple[str, ...]:
    accuracy = f"{result['accuracy']:.3f} ({result['accuracy_low']:.3f} to {result['accuracy_high']:.3f})"
    area = f"{result['roc_auc']:.3f} ({result['roc_auc_low']:.3f} to {result['roc_auc_high']:.3f})"
    mean_image = f"{result['without_network']:.3f}" if "without_network" in result else ""
    tested = f"{result['dataset'].replace('drawn', 'synthetic')}, {result['images']}"
    return tested, accuracy, area, mean_image, f"{result['validation_accuracy']:.3f}"


def _reason(row: Experiment) -> str:
    weights = row.set.get("weights", "")
    measured_with = weights != "imagenet" or row.set["backbone"] == "mobilenet_v2"
    return "" if measured_with and not weights.startswith("timm/") else " (weights unavailable)"


def seconds(value: float) -> str:
    """Format a duration in a readable unit."""
    for unit, size in (("h", 3600), ("min", 60), ("s", 1)):
        if value >= 2 * size or (unit == "s" and value >= 1):
            return f"{value / size:.1f} {unit}"
    return f"{1000 * value:.3g} ms"


def short(value: float) -> str:
    """Format a number with three significant digits, or as an integer if it is at least 100."""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def growth(scale: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the growth of `clean`'s time per image: total factor, and exponent between the two largest sizes."""
    if not scale:
        return None
    counts, each = scale["images"], scale["seconds_per_image"]
    power = math.log(each[-1] / each[-2]) / math.log(counts[-1] / counts[-2])
    return {"counts": counts, "factor": each[-1] / each[0], "power": max(power, 0)}


def million(slopes: dict[str, Any] | None, grown: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Extrapolate each stage to a million images: linearly, except `clean`, which uses the measured exponent."""
    rows = []
    for stage, each in slopes["stages"].items() if slopes else ():
        power = grown["power"] if grown and stage == "clean" else 0
        more = (MILLION / slopes["images"][-1]) ** power if slopes else 1
        rows.append(
            {
                "stage": stage,
                "seconds_per_image": each["seconds_per_image"],
                "seconds": each["seconds"] + MILLION * each["seconds_per_image"] * more,
                "memory": each["memory"] + MILLION * max(each["memory_per_image"], 0),
                "disk": MILLION * max(each["disk_per_image"], 0),
            }
        )
    return rows


def performance_md(folder: Path = ROOT / "benchmarks") -> str:
    """Return docs/performance.md from results.json and details.json in `folder`. Missing results show "not run"."""

    def read(name: str, otherwise: Any) -> Any:
        path = folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else otherwise

    results = {row["name"]: row for row in read("results.json", [])}
    details = read("details.json", {})
    slopes, grown = details.get("slopes"), growth(details.get("clean_scale"))
    pages = jinja2.Environment(  # noqa: S701 (Markdown, from our own figures)
        trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    pages.filters |= {"seconds": seconds, "short": short}
    page = pages.from_string((ROOT / "docs/performance.md.j2").read_text(encoding="utf-8"))
    return page.render(
        rows=[(name, *claim, results.get(name)) for name, claim in CLAIMS.items()],
        first_answer=details.get("first_answer"),
        stages=list(details["pipeline"]["seconds"].items()) if "pipeline" in details else [],
        million=million(slopes, grown),
        real=details.get("million"),
        sizes=slopes["images"] if slopes else [],
        side=slopes["side"] if slopes else 0,
        growth=grown,
    )


PAGES: dict[str, Callable[[], str]] = {
    "parameters": parameters_md,
    "experiments": experiments_md,
    "honest": lambda: filled("honest", **{key: results_of(key) + "\n" for key in ("headline", "seeds", "scratch")}),
    "performance": performance_md,
    **{name: functools.partial(filled, name) for name in ("backbones", "use", "review")},
}


def main() -> None:
    """Write all generated files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", action="store_true", help="also rewrite params.yaml with the defaults")
    if parser.parse_args().params:
        (ROOT / "params.yaml").write_text(params_yaml(), encoding="utf-8")
    for name, page in PAGES.items():
        (ROOT / f"docs/{name}.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
