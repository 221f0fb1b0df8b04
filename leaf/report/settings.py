"""What this run was made of: parameters that differ from the defaults, versions, seeds, hashes."""

from collections.abc import Mapping
from typing import Any

from leaf import params as schema
from leaf.report.run import Run


def changed(values: Mapping[str, Any]) -> list[dict[str, str]]:
    """The parameters that differ from their defaults: key, default, value, and what the key is for."""
    table = schema.keys()
    return [
        {"key": key, "default": shown(table[key]["default"]), "value": shown(value), "why": table[key]["why"] or ""}
        for key, value in values.items()
        if key in table and value != table[key]["default"]
    ]


def provenance(run: Run) -> dict[str, Any]:
    """Versions, seeds, the network and the SHA-256 of the tables that the page was made from."""
    facts = run.run
    network = [
        ("Backbone", facts.get("backbone") or run.params.get("backbone")),
        ("Parameters", _count(facts.get("parameters"))),
        ("of these trainable", _count(facts.get("trainable_parameters"))),
        ("Image size", f"{run.images.shape[2]} × {run.images.shape[1]} pixels"),
        ("Training seed", run.params.get("seed")),
        ("Split seed", run.params.get("split_seed")),
        ("Temperature", _rounded(run.scores.get("temperature"))),
        ("Threshold", _rounded(run.scores.get("threshold"))),
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
