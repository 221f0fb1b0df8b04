"""What `leaf summary` prints: the network that params.yaml, an experiment and settings name."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from leaf import experiments, params
from leaf.models.backbones import BACKBONES
from leaf.store import read_classes

app = typer.Typer()


def network(experiment: str | None, settings: Sequence[str], as_json: bool) -> str:
    """Give the table of the network that `train` would build, its weights left random.

    Args:
        experiment: a row of experiments.yaml, laid over params.yaml; None for params.yaml alone.
        settings: `key=value` texts, laid over both.
        as_json: JSON instead of a table.

    Raises:
        LeafError: for an unknown experiment or key, a value out of range.
    """
    row = experiments.experiment(experiment).set if experiment else {}
    values = params.load().model_dump()
    chosen = experiments.with_settings(values, {**row, **experiments.parse_settings(settings)})

    from leaf.models.build import build_model
    from leaf.models.summary import summarize_model  # after the checks: importing Keras takes seconds

    shown = ("dropout", "freeze_depth", "freeze_normalization", "seed")
    classes = len(read_classes() if chosen.classes == "auto" else chosen.classes)
    model = build_model(chosen.backbone, chosen.image_size, classes, **{name: getattr(chosen, name) for name in shown})
    table = summarize_model(model)
    return json.dumps(asdict(table), indent=2) if as_json else str(table)


def backbones() -> str:
    """Give every name that `backbone` may have, with what it is."""
    width = max(map(len, BACKBONES))
    return "\n".join(f"{name.ljust(width)}  {kind.why}" for name, kind in BACKBONES.items())


@app.command(
    epilog="Examples: `leaf summary`   `leaf summary report_final`   `leaf summary -S backbone=convnext_large --json`"
)
def command(
    experiment: Annotated[str | None, typer.Argument(help="a row of experiments.yaml")] = None,
    settings: Annotated[list[str] | None, typer.Option("-S", "--set-param", help="key=value, over the row's")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    show: Annotated[bool, typer.Option("--list", help="list the backbones instead")] = False,
) -> None:
    """Print the network's parts and parameters."""

    typer.echo(backbones() if show else network(experiment, settings or [], as_json))
