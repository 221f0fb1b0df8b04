"""The report of one run: tables in, one self-contained HTML page out."""

import base64
import functools
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from leaf import params as schema
from leaf.finished_run import Run
from leaf.report import advice, cleaning, counts, gallery, results
from leaf.report.charts import Interval, percent, ruler
from leaf.report.gallery import Album
from leaf.report.svg import Figure, both, plural

TEMPLATES = Path(__file__).with_name("templates")


def render(run: Run) -> str:
    """The page of `run`. Equal tables give equal bytes, but for what `run.told` says of when and how long."""
    album = Album(run.images, run.index, run.classes)
    copies = cleaning.copies(run, album)
    found = results.section(run)
    context = {
        "classes": run.classes,
        "head": head(run, found),
        "counts": counts.section(run),
        "samples": gallery.samples(run, album),
        "outliers": cleaning.outliers(run, album),
        "copies": copies,
        "near": cleaning.near(run, album),
        "rulings": cleaning.rulings(run, album),
        "flags": cleaning.flagged(run.index),
        "synthetic": gallery.synthetic(run, album),
        "training": results.training_section(run),
        "results": found,
        "gallery": gallery.section(run, album),
        "advice": advice.section(run, copies["conflicting"]),
        "changed": changed(run.params),
        "provenance": provenance(run),
    }
    return fill("report.html.j2", context)


def fill(template: str, context: dict[str, Any]) -> str:
    """Fill one of the packaged templates; every value that is not Markup is escaped."""
    letters = base64.b64encode((TEMPLATES / "inter.woff2").read_bytes()).decode("ascii")
    face = f"@font-face{{font-family:Inter;font-weight:100 900;src:url(data:font/woff2;base64,{letters})}}\n"
    style = Markup(face + _sheet())  # noqa: S704 - our own style sheet
    return _environment().get_template(template).render(context, style=style) + "\n"


def standalone(figure: Markup) -> str:
    """A figure as an SVG file of its own: with the page's style sheet, on the page's ground."""
    tag, _, rest = str(figure).partition(">")
    style = f"<style>{escape(_sheet())}svg{{background:var(--paper);font-family:sans-serif}}</style>"
    return f'{tag} xmlns="http://www.w3.org/2000/svg">\n{style}\n{rest}\n'


def _sheet() -> str:
    return (TEMPLATES / "page.css").read_text(encoding="utf-8")


def unbroken(words: str) -> str:
    """A sentence whose figures stay on one line: `p = 0.059`, `+2.7 points`, `95 %`, `-0.5 to +6.0`."""
    joined = re.sub(r"(?<=\bp) ([=<]) (?=\d)", "\xa0\\1\xa0", words)
    return re.sub(r"(?<=\d) (?=%|points?\b|to [-+]?\d)|(?<=\d to) (?=[-+]?\d)", "\xa0", joined)


def breakable(name: str) -> Markup:
    """A name or path that may break behind its slashes and underscores, so that it need not within a word."""
    return Markup(re.sub(r"([_/]+)(?=\w)", r"\1<wbr>", str(escape(name))))  # noqa: S704 - escaped before


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"unbroken": unbroken, "breakable": breakable}
    return environment


def head(run: Run, found: dict[str, Any]) -> dict[str, Any]:
    """Return the first screen: the result, the baselines next to it, and four figures of the run."""
    name, block = found["split"], found["block"]
    images, accuracy = int(block.get("images") or 0), block.get("accuracy")
    tiles = [
        (f"{len(run.index):,}", "images read"),
        (f"{len(run.kept()):,}", "kept after cleaning"),
        ("no", "epochs: a linear probe")
        if run.training.get("probe")
        else (f"{len(run.history):,}", "epoch trained" if len(run.history) == 1 else "epochs trained"),
    ]
    if block.get("roc_auc") is not None:
        tiles.append((f"{block['roc_auc']:.3f}", f"area under the ROC, {name}"))
    return {
        "title": "No score was written"
        if accuracy is None
        else f"{percent(accuracy)} accuracy on {plural(images, f'{name} image')}",
        "lede": " ".join(filter(None, [_interval(block), _lowest_recall(run, block), run.scores.get("note")])),
        "ruler": _ruler(run, block),
        "tiles": tiles,
        "backbone": str(run.training.get("backbone") or run.params.get("backbone", "")),
        "dataset": str(run.params.get("dataset", "")),
        "date": run.told.get("Date", "").partition(",")[0].replace(" ", "\xa0"),
    }


def _interval(block: Mapping[str, Any]) -> str:
    low, high = block.get("accuracy_low"), block.get("accuracy_high")
    if low is None or high is None:
        return ""
    return f"The 95% confidence interval of the accuracy is {percent(low)} to {percent(high)}."


def _lowest_recall(run: Run, block: Mapping[str, Any]) -> str:
    recalls = [
        (each["recall"], name)
        for each, name in zip(block.get("classes") or [], run.classes, strict=False)
        if each.get("recall") is not None
    ]
    if not recalls or block.get("balanced_accuracy") is None:
        return ""
    recall, name = min(recalls)
    balanced = percent(block["balanced_accuracy"])
    return f"Balanced accuracy is {balanced}; the lowest recall is {percent(recall)} ({name})."


def _ruler(run: Run, block: Mapping[str, Any]) -> Figure | None:
    """The accuracy with its interval on one line with the baselines."""
    if block.get("accuracy") is None:
        return None
    low, high = block.get("accuracy_low"), block.get("accuracy_high")
    rows = [Interval("This network", block["accuracy"], low, high, "this network", "first")]
    rows += [replace(row, low=None, high=None) for row in results.baselines(run.scores)]
    told = "; ".join(f"{row.note} {percent(row.value)}" for row in rows)
    return both(lambda width: ruler(rows, f"Accuracy on one line: {told}.", width))


def changed(values: Mapping[str, Any]) -> list[dict[str, str]]:
    """The parameters that differ from their defaults: key, default, value, and what the key is for."""
    table = schema.keys()
    return [
        {"key": key, "default": shown(table[key]["default"]), "value": shown(value), "why": table[key]["why"] or ""}
        for key, value in values.items()
        if key in table and value != table[key]["default"]
    ]


def provenance(run: Run) -> dict[str, Any]:
    """When it ran, versions, seeds, the network and the SHA-256 of the tables that the page was made from."""
    facts = run.training
    network = [
        *run.told.items(),
        ("Backbone", facts.get("backbone") or run.params.get("backbone")),
        ("Parameters", _count(facts.get("parameters"))),
        ("of these trainable", _count(facts.get("trainable_parameters"))),
        ("Image size", f"{run.images.shape[2]} × {run.images.shape[1]} pixels"),
        ("Training seed", run.params.get("seed")),
        ("Split seed", run.params.get("split_seed")),
        ("Temperature", _rounded(run.scores.get("temperature"))),
        ("Threshold", _rounded(run.scores.get("threshold")) if len(run.classes) == 2 else None),
    ]
    versions = [(str(name), str(value)) for name, value in sorted((facts.get("versions") or {}).items())]
    hashes = [("models/model.keras", str(facts["model_sha256"]))] if facts.get("model_sha256") else []
    return {
        "network": [(name, str(value)) for name, value in network if value is not None],
        "versions": versions,
        "hashes": hashes + sorted(run.files.items()),
    }


def shown(value: Any) -> str:
    """A parameter's value as params.yaml would say it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return "[" + ", ".join(shown(item) for item in value) + "]"
    return str(value) if value != "" else "(empty)"


def _count(value: Any) -> str | None:
    return f"{int(value):,}" if isinstance(value, (int, float)) else None


def _rounded(value: Any) -> str | None:
    return f"{value:.3g}" if isinstance(value, (int, float)) else None
