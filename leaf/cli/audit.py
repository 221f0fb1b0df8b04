"""Examples: `leaf audit`   `leaf audit --by site`   `leaf audit probe -S dataset=/home/me/leaves`"""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from leaf import params, store
from leaf.audit.audit import METRICS, PAGE, audit, retrain_without, run_into_folder
from leaf.cli.options import Settings
from leaf.experiments import parse_settings, row_settings
from leaf.report.audit import audit_summary


def command(
    row: Annotated[
        str | None, typer.Argument(help="row of experiments.yaml to run first (default: use the finished run)")
    ] = None,
    settings: Settings = None,
    by: Annotated[
        str | None, typer.Option(help="column whose values are left out one by one (default: site, crop, camera, date)")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="folder of masks, white on the leaf (default: the run's masks)")
    ] = None,
    train: Annotated[
        bool, typer.Option("--train", help="for each value left out, retrain the network, not only a linear head")
    ] = False,
) -> None:
    """Test for shortcuts (borders, file properties, background) and for domain shift (site, crop, camera, date)."""
    name = f"audit-{row or 'default'}"
    chosen = {**(row_settings(row)[0] if row else {}), **parse_settings(settings or [])}
    with tempfile.TemporaryDirectory(prefix="leaf-audit-") as folder:
        root = Path(folder) if row or settings else Path()
        if row or settings:
            run_into_folder(name, chosen, root)
        dataset = params.load(root / params.PARAMS_FILE).dataset
        found = audit(
            root, by, masks, retrain_without(name, {"dataset": dataset, **chosen}, Path(folder)) if train else None
        )
    store.write_json(found, METRICS)
    html, lines = audit_summary(found)
    with store.replacing(PAGE) as partial:
        partial.write_text(html, encoding="utf-8")
    typer.echo("\n".join([*lines, f"report: {PAGE}; metrics: {METRICS}"]))
