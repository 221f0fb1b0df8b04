"""Render a run's report, one-page summary and model card."""

import base64
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from leaf import params as schema
from leaf.errors import plural
from leaf.finished_run import Run
from leaf.report import advice, gallery, results, sankey
from leaf.report.charts import with_interval
from leaf.report.gallery import Album

TEMPLATES = Path(__file__).with_name("templates")


def render(run: Run) -> str:
    """Return the report as a self-contained HTML page. The same tables and `run.facts` give byte-identical pages."""
    album = Album(run)
    found = results.section(run)
    context = {
        "run": run,
        "classes": run.names,
        "head": head(run, found),
        "counts": sankey.section(run),
        "samples": gallery.samples(run, album),
        "outliers": gallery.outliers(run, album),
        "copies": gallery.copies(run, album),
        "near": gallery.near(run, album),
        "decisions": gallery.decisions(run, album),
        "flags": gallery.flagged(run.index),
        "synthetic": gallery.synthetic(run, album),
        "training": results.training_section(run),
        "results": found,
        "gallery": gallery.section(run, album),
        "advice": advice.section(run),
        "changed": changed(run.params),
        "provenance": provenance(run),
    }
    return fill("report.html.j2", context)


def render_summary(run: Run) -> str:
    """Return the printable one-page summary as HTML."""
    return fill("summary.html.j2", {"card": card(run)})


def model_card(run: Run) -> str:
    """Return the model card as Markdown."""
    known = provenance(run)
    return fill("model_card.md.j2", {"card": card(run), "facts": known["network"] + known["hashes"][:1]})


def markdown(words: str) -> str:
    """Escape the special characters of Markdown and HTML in `words`, and collapse whitespace."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(words).split()))


def fill(template: str, context: dict[str, Any]) -> str:
    """Render a template of this package. HTML templates escape all values except Markup."""
    letters = base64.b64encode((TEMPLATES / "inter.woff2").read_bytes()).decode("ascii")
    face = f"@font-face{{font-family:Inter;font-weight:100 900;src:url(data:font/woff2;base64,{letters})}}\n"
    style = Markup(face + _sheet())  # noqa: S704 - leaf's own style sheet
    return _environment().get_template(template).render(context, style=style) + "\n"


def standalone(figure: Markup) -> str:
    """Return an SVG figure as a standalone file that includes the style sheet."""
    tag, _, rest = str(figure).partition(">")
    style = f"<style>{escape(_sheet())}svg{{background:var(--paper);font-family:sans-serif}}</style>"
    return f'{tag} xmlns="http://www.w3.org/2000/svg">\n{style}\n{rest}\n'


def _sheet() -> str:
    return (TEMPLATES / "page.css").read_text(encoding="utf-8")


def unbroken(words: str) -> str:
    """Insert no-break spaces next to numbers, as in `p = 0.059`, `+2.7 points` and `-0.5 to +6.0`."""
    joined = re.sub(r"(?<=\bp) ([=<]) (?=\d)", "\xa0\\1\xa0", words)
    return re.sub(r"(?<=\d) (?=%|points?\b|to [-+]?\d)|(?<=\d to) (?=[-+]?\d)", "\xa0", joined)


def breakable(name: str) -> Markup:
    """Allow line breaks after the slashes and underscores in `name`."""
    return Markup(re.sub(r"([_/]+)(?=\w)", r"\1<wbr>", str(escape(name))))  # noqa: S704 - escaped before


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"unbroken": unbroken, "breakable": breakable, "markdown": markdown}
    return environment


def head(run: Run, found: dict[str, Any]) -> dict[str, Any]:
    """Return the content of the page header: title, summary, key figures and date."""
    name, block, epochs = found["split"], found["block"], len(run.history)
    low, high = (f"{block[key]:.1%}" for key in ("accuracy_low", "accuracy_high"))
    words = [f"The 95% confidence interval of the accuracy is {low} to {high}."]
    recall, weakest = results.lowest_recall(run, block)
    if block["balanced_accuracy"] is not None:
        balanced = f"{block['balanced_accuracy']:.1%}"
        words.append(f"Balanced accuracy is {balanced}; the lowest recall is {recall:.1%} ({weakest}).")
    trained = ("0", "epochs (linear probe)") if run.training.get("probe") else plural(epochs, "epoch").split()
    tiles = [(f"{len(run.index):,}", "images read"), (f"{len(run.kept()):,}", "kept after cleaning"), trained]
    if block["roc_auc"] is not None:
        tiles.append((f"{block['roc_auc']:.3f}", f"ROC AUC, {name}"))
    return {
        "title": f"{block['accuracy']:.1%} accuracy on {plural(block['images'], f'{name} image')}",
        "lede": " ".join([*words, *filter(None, [run.scores["note"]])]),
        "tiles": tiles,
        "date": run.facts.get("Date", "").partition(",")[0].replace(" ", "\xa0"),
    }


def changed(values: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return key, default, value and description of the parameters that differ from their defaults."""
    table = schema.keys()
    return [
        {"key": key, "default": shown(table[key]["default"]), "value": shown(value), "why": table[key]["why"] or ""}
        for key, value in values.items()
        if key in table and value != table[key]["default"]
    ]


def provenance(run: Run) -> dict[str, Any]:
    """Return the facts needed to reproduce the run: network, seeds, date, versions and SHA-256 hashes of the files."""
    training, scores, params = run.training, run.scores, run.params
    network = [
        *run.facts.items(),
        ("Backbone", training["backbone"]),
        ("Weights", _weights(run)),
        ("Parameters", f"{training['parameters']:,}"),
        ("Trainable parameters", f"{training['trainable_parameters']:,}"),
        ("Image size", f"{run.images.shape[2]} × {run.images.shape[1]} pixels"),
        ("Training seed", str(params["seed"])),
        ("Split seed", str(params["split_seed"])),
        ("Temperature", f"{scores['temperature']:.3g}"),
    ]
    if len(run.classes) == 2:
        network.append(("Threshold", f"{scores['threshold']:.3g}"))
    weights_sha256 = training.get("weights", {}).get("sha256") or params["weights_sha256"]
    models = [("models/model.keras", training["model_sha256"]), ("weights", weights_sha256)]
    return {
        "network": network,
        "versions": sorted(training["versions"].items()),
        "hashes": [(name, value) for name, value in models if value] + sorted(run.files.items()),
    }


def shown(value: Any) -> str:
    """Format a parameter value as in params.yaml."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return "[" + ", ".join(shown(item) for item in value) + "]"
    return str(value) if value != "" else "(empty)"


def card(run: Run) -> dict[str, Any]:
    """Return the content shared by the summary and the model card."""
    split, block = results.scored_split(run.scores)
    names = run.names
    accuracy = with_interval(block["accuracy"], block["accuracy_low"], block["accuracy_high"], "95% CI ")
    known = block["balanced_accuracy"] is not None
    balanced = f"; balanced accuracy {block['balanced_accuracy']:.1%}" if known else ""
    listed = f"{len(names)} classes" if len(names) > 4 else ", ".join(names[:-1]) + f" or {names[-1]}"
    return {
        "title": f"Leaf image classifier: {listed}",
        "split": split,
        "date": run.facts.get("Date", "").partition(",")[0],
        "commit": run.facts.get("Commit", "").partition(",")[0],
        "result": f"Accuracy {accuracy} on {plural(block['images'], f'{split} image')}{balanced}.",
        "model": _model(run),
        "baseline": _baseline(run, block),
        "data": _data(run),
        "classes": _classes(run, block),
        "limits": _limits(run, split, block),
    }


def _weights(run: Run) -> str:
    """Describe the initial weights: checkpoint, revision and license, or the file name or parameter value."""
    if record := run.training.get("weights"):
        return f"{record['name']}, revision {record['revision']}, license {record['license']}"
    return Path(run.params["weights"]).name


def _model(run: Run) -> str:
    height, width = run.images.shape[1:3]
    scratch = run.params["weights"] == "random"
    return (
        f"{run.training['backbone']}, {run.training['parameters']:,} parameters, "
        f"{'trained from scratch' if scratch else f'with pretrained weights ({_weights(run)})'}. "
        f"Input: one color image, resized to {width} × {height} pixels. Output: a probability for each class."
    )


def _baseline(run: Run, block: Mapping[str, Any]) -> str:
    best = max(results.baselines(run.scores), key=lambda entry: entry.value)
    words = f"Best baseline on the same images: {best.name.lower()}, {best.value:.1%}."
    beaten = block["accuracy_low"] > best.value
    return words if beaten else f"{words} This baseline is not below the model's confidence interval."


def _data(run: Run) -> str:
    removed = run.decisions.loc[run.decisions["kept"] != 1, "reason"].value_counts()
    words = f"{Path(run.params['dataset']).name}: {plural(len(run.index), 'image')}, {len(run.kept()):,} kept"
    if len(removed):
        parts = [
            f"{count:,} {sankey.REASONS.get(str(reason), str(reason)).lower().removesuffix('s' if count == 1 else '')}"
            for reason, count in removed.items()
        ]
        words += f" (removed: {', '.join(parts)})"
    sizes = ", ".join(f"{sum(counts):,} {name}" for name, counts in sankey.split_counts(run).items())
    made = f" Balancing added {plural(len(run.synthetic), 'training image')}." if len(run.synthetic) else ""
    return f"{words}. Split: {sizes}.{made}"


def _classes(run: Run, block: Mapping[str, Any]) -> list[list[str]]:
    """Return one row per class: name, training images, scored images, recall and precision."""
    train = run.splits.loc[run.splits["split"] == "train", "image"]
    trained = run.labels().reindex(train).value_counts()
    rows = []
    for label, (name, each) in enumerate(zip(run.names, block["classes"], strict=True)):
        recall, precision = each["recall"], each["precision"]
        cells = [
            "–" if recall is None else with_interval(recall, each["recall_low"], each["recall_high"]),
            "–" if precision is None else f"{precision:.1%}",
        ]
        rows.append([name, f"{trained.get(label, 0):,}", f"{each['images']:,}", *cells])
    return rows


_UNGROUPED = (
    "No groups were specified. If several images show the same leaf, the accuracy is optimistic unless cleaning "
    "grouped them."
)


def _limits(run: Run, split: str, block: Mapping[str, Any]) -> list[str]:
    recall, weakest = results.lowest_recall(run, block)
    grouped = run.index["group"].ne("").any()
    return [
        "The model always predicts one of its classes. It does not recognize other diseases, plants or damage.",
        "The accuracy applies to images like those in the data set. Expect lower accuracy with another camera, "
        "background, site or plant species; `leaf audit` estimates the drop if the data set records them.",
        f"Weakest class: {1 - recall:.1%} of the {weakest} {split} images are predicted as another class.",
        *([results.NO_TEST] if split == "validation" else []),
        *([] if grouped else [_UNGROUPED]),
        "A prediction is not a diagnosis. Check uncertain or important predictions by eye.",
    ]
