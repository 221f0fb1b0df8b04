"""`leaf report`: git revisions, DVC experiments and the workspace on one page, with what `leaf compare` says."""

import io
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import pandas as pd
import typer

from leaf.cli.compare import compare_revisions
from leaf.errors import LeafError
from leaf.params import flatten
from leaf.report.side_by_side import MOST, Difference, RunSummary, render_side_by_side
from leaf.revisions import WORKSPACE, parameters, reader
from leaf.store import replacing

app = typer.Typer()


def write_report(revisions: Sequence[str], to: str) -> str:
    """Write the page of `revisions` to the file `to`; one alone stands beside the workspace. Returns what was done.

    Revisions joined by commas are seeds of one recipe: each is shown, and compared together.
    Raises LeafError where a revision is unknown or has not run, or where there are more than the page can show.
    """
    recipes = list(revisions) if len(revisions) > 1 else [WORKSPACE, *revisions]
    names = [name for recipe in recipes for name in recipe.split(",")]
    if len(names) > MOST:
        raise LeafError(f"report: {len(names)} revisions; valid: at most {MOST} on one page")
    if len(set(names)) < len(names):
        raise LeafError(f"report: a revision is named twice: {' '.join(names)}")
    runs = [read_summary(name) for name in names]
    split = "test" if all((run.scores.get("splits") or {}).get("test") for run in runs) else "validation"
    found, refusal = _differences(recipes, split)
    html = render_side_by_side(runs, found, refusal)
    with replacing(to) as partial:
        partial.write_text(html, encoding="utf-8")
    return "\n".join([*(one.sentence for one in found), *filter(None, [refusal]), f"{to}: written"])


def read_summary(revision: str) -> RunSummary:
    """What the page shows of a revision, an experiment or the workspace."""
    read = reader(revision)

    def parsed(path: str, parse: Callable[[bytes], Any]) -> Any:
        try:
            return parse(read(path))
        except ValueError as error:  # JSON's and pandas' errors are ValueErrors
            raise LeafError(f"{revision}: {path}: cannot be read ({error}); run `dvc repro` there again") from None

    return RunSummary(
        name=revision,
        params=flatten(parameters(read)),
        scores=parsed("data/scored/scores.json", json.loads),
        history=parsed("models/history.csv", lambda text: pd.read_csv(io.BytesIO(text))),
        training=parsed("models/run.json", json.loads),
    )


def _differences(names: Sequence[str], split: str) -> tuple[list[Difference], str]:
    """Each further run against the first, or why that cannot be said."""
    try:
        found = compare_revisions(names, split)
    except LeafError as error:
        return [], str(error)
    return [Difference(one.a, one.b, one.sentence, one.difference, one.low, one.high) for one in found], ""


@app.command(
    epilog="Examples: `leaf report dropout_02`   `leaf report main dropout_02 augmented --to side_by_side.html`"
)
def command(
    revisions: Annotated[
        list[str], typer.Argument(help="git revisions, experiments, workspace; several seeds: REV,REV", metavar="REV…")
    ],
    to: Annotated[str, typer.Option(help="where the page goes")] = "reports/side_by_side.html",
) -> None:
    """Put several runs on one page; one alone stands beside the workspace."""
    typer.echo(write_report(revisions, to))
