"""Examples: `leaf summary`   `leaf summary report_final`   `leaf summary -S backbone=convnext_large --json`"""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from leaf import experiments, params
from leaf.cli.options import Row, Settings
from leaf.models.backbones import BACKBONES
from leaf.store import read_classes


def command(
    experiment: Row = None,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    show: Annotated[bool, typer.Option("--list", help="list the backbones and exit")] = False,
) -> None:
    """Print the layers and parameter counts of a model."""
    if show:
        width = max(map(len, BACKBONES))
        for name, backbone in BACKBONES.items():
            typer.echo(f"{name.ljust(width)}  {backbone.why}")
        return
    row = experiments.experiment(experiment).set if experiment else {}
    changes = {**row, **experiments.parse_settings(settings or [])}
    chosen = experiments.with_settings(params.load().model_dump(), changes)

    from leaf.models.build import build_model_from_params  # imports Keras, which takes seconds
    from leaf.models.summary import summarize_model

    classes = read_classes() if chosen.classes == "auto" else chosen.classes
    summary = summarize_model(build_model_from_params(chosen, len(classes), weights="random", weights_sha256=""))
    typer.echo(json.dumps(asdict(summary), indent=2) if as_json else str(summary))
