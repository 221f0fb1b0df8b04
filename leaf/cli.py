"""The console command `leaf`: thin, each command calls its topic and imports it only when it is used."""

import os
from pathlib import Path
from typing import Annotated

import typer

from leaf.errors import one_line_errors
from leaf.runner.commands import app as runner

HELP = """From a messy set of leaf photographs to an honest healthy/unhealthy classifier.

Exit status: 0 done; 1 done, but not for everything asked; 2 refused, with one line that says why."""

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, help=HELP)
app.add_typer(runner)


@app.command(epilog="Example: `leaf check`, as `make run` does before the first stage")
def check() -> None:
    """Check params.yaml, the data set and the files it names before any stage runs."""
    from leaf.checking import check

    typer.echo(check())


@app.command(epilog="Example: `leaf results`, after `dvc repro`")
def results() -> None:
    """Print what the last run of the pipeline gave."""
    from leaf.results import results

    typer.echo(results())


@app.command(
    epilog="Examples: `leaf compare HEAD workspace`   `leaf compare main dropout_02`   "
    "`leaf compare seed-1,seed-2 wider-1,wider-2`"
)
def compare(
    revisions: Annotated[list[str], typer.Argument(help="REV_A REV_B [REV…]; seeds of one recipe joined by commas")],
    split: Annotated[str, typer.Option(help="the images to compare on: test or validation")] = "test",
) -> None:
    """Say whether runs are better than the first: git revisions, DVC experiments, or `workspace`."""
    from leaf.comparing import compare_revisions, describe

    typer.echo(describe(compare_revisions(revisions, split)))


@app.command(
    epilog="Examples: `leaf run --list`   `leaf run dropout_02 augmented -S epochs=20`   `leaf run dropout_02 --temp`"
)
def run(
    names: Annotated[list[str] | None, typer.Argument(help="rows of experiments.yaml", metavar="NAME…")] = None,
    settings: Annotated[list[str] | None, typer.Option("-S", "--set-param", help="key=value, over the row's")] = None,
    show: Annotated[bool, typer.Option("--list", help="list the rows instead")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="replace experiments of the same name")] = False,
    temp: Annotated[bool, typer.Option("--temp", help="run in a folder of its own, the workspace stays")] = False,
) -> None:
    """Run named experiments through `dvc exp run`."""
    from leaf.errors import LeafError
    from leaf.running import list_experiments, run_experiments

    if show:
        typer.echo(list_experiments())
    elif names:
        raise typer.Exit(run_experiments(names, settings or [], force, temp))
    else:
        raise LeafError("run: no experiment named; `leaf run --list` lists them")


@app.command(epilog="Examples: `leaf folds`   `leaf folds plain -S folds=5`   `leaf folds --show`")
def folds(
    experiment: Annotated[str | None, typer.Argument(help="a row of experiments.yaml  [params.yaml as it is]")] = None,
    settings: Annotated[list[str] | None, typer.Option("-S", "--set-param", help="key=value; folds=N, else 5")] = None,
    name: Annotated[str | None, typer.Option(help="of the DVC experiments NAME-fold-0, …  [the row's]")] = None,
    show: Annotated[bool, typer.Option("--show", help="print what finished folds gave, run none")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="replace experiments of the same name")] = False,
) -> None:
    """Cross-validate: a DVC experiment a fold, groups whole, each image tested once; mean, spread, intervals."""
    from leaf.folding import finished, run_folds

    stem = name or experiment or "default"
    if not show and (status := run_folds(experiment, settings or [], stem, force)):
        raise typer.Exit(status)
    typer.echo(finished(stem))


@app.command(epilog="Examples: `leaf labels`   `leaf labels --rulings >> data/overrides.csv`")
def labels(
    revisions: Annotated[list[str] | None, typer.Argument(help="runs, or all folds of one  [workspace]")] = None,
    most: Annotated[int, typer.Option(help="images to list, at most", min=1)] = 20,
    rows: Annotated[bool, typer.Option("--rulings", help="print rows for data/overrides.csv instead")] = False,
) -> None:
    """Name images whose label looks wrong, among those that the network did not learn from (confident learning)."""
    from leaf.labelling import describe, rulings, wrong_labels

    found = wrong_labels(revisions or ["workspace"])
    typer.echo((rulings if rows else describe)(found, most))


@app.command(epilog="Examples: `leaf leak`   `leaf leak --learner neighbour -S backbone=mobilenet_v2`")
def leak(
    experiment: Annotated[str | None, typer.Argument(help="a row of experiments.yaml  [params.yaml as it is]")] = None,
    settings: Annotated[list[str] | None, typer.Option("-S", "--set-param", help="key=value; folds=N, else 5")] = None,
    learner: Annotated[
        str, typer.Option(help="network; logistic or neighbour: on features that do not learn")
    ] = "network",
    repeats: Annotated[int | None, typer.Option(help="of all folds  [network 1, else 5]", min=1, max=100)] = None,
    name: Annotated[str | None, typer.Option(help="of the DVC experiments NAME-leaky-0-fold-0, …  [the row's]")] = None,
    show: Annotated[bool, typer.Option("--show", help="network: print what finished experiments gave")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="replace experiments of the same name")] = False,
) -> None:
    """What a leak is worth: copies kept and groups torn apart, against copies removed and groups whole."""
    from leaf import leaking
    from leaf.errors import LeafError

    if learner == "network":
        stem = name or experiment or "default"
        if not show and (status := leaking.run_network(experiment, settings or [], stem, repeats or 1, force)):
            raise typer.Exit(status)
        typer.echo(leaking.of_network(stem, repeats or 1))
    elif learner in ("logistic", "neighbour"):
        found, described = leaking.of_frozen(experiment, settings or [], learner, repeats or 5)
        typer.echo(f"{found}\n  learner: {learner}, on {described}")
    else:
        raise LeafError(f"--learner {learner}; valid: network, logistic, neighbour")


@app.command(
    epilog="Examples: `leaf summary`   `leaf summary report_final`   `leaf summary -S backbone=convnext_large --json`"
)
def summary(
    experiment: Annotated[str | None, typer.Argument(help="a row of experiments.yaml")] = None,
    settings: Annotated[list[str] | None, typer.Option("-S", "--set-param", help="key=value, over the row's")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    show: Annotated[bool, typer.Option("--list", help="list the backbones instead")] = False,
) -> None:
    """Print the network's parts and parameters."""
    from leaf import describing

    typer.echo(describing.backbones() if show else describing.network(experiment, settings or [], as_json))


@app.command(epilog="Examples: `leaf verify`   `leaf verify HEAD~1 --tolerance 0.05`")
def verify(
    revision: Annotated[str, typer.Argument(help="a git revision with a dvc.lock")] = "HEAD",
    tolerance: Annotated[float, typer.Option(help="largest difference of a score that still agrees", min=0)] = 0.02,
) -> None:
    """Run the pipeline of a revision anew, from nothing, and compare with its committed lock and metrics."""
    from leaf.verifying import verify

    verdicts = verify(revision, tolerance)
    for verdict in verdicts:
        typer.echo(f"{verdict.stage.ljust(12)} {verdict.outcome.ljust(17)} {verdict.why}".rstrip())
    if any(verdict.outcome == "different" for verdict in verdicts):
        raise typer.Exit(1)


@app.command(epilog="Examples: `leaf why 58`   `leaf why healthy/0017.jpg`")
def why(image: Annotated[str, typer.Argument(help="an image number, or a source name")]) -> None:
    """Follow one image through every table: what happened to it, and why."""
    from leaf.tracing import why

    typer.echo(why(image))


@app.command("lr-range", epilog="Examples: `leaf lr-range`   `leaf lr-range --highest 0.1 --figure range.svg`")
def lr_range(
    figure: Annotated[str, typer.Option(help="where the drawing goes, an .svg file")] = "lr-range.svg",
    lowest: Annotated[float, typer.Option(help="first learning rate")] = 1e-5,
    highest: Annotated[float, typer.Option(help="last learning rate")] = 1.0,
    updates: Annotated[int, typer.Option(help="updates from the first rate to the last")] = 200,
) -> None:
    """Smith's range test: propose learning_rate.base and learning_rate.max for the data and network of params.yaml."""
    from leaf.params import read_params
    from leaf.training.range_command import lr_range

    typer.echo(lr_range(read_params("train"), figure, lowest, highest, updates))


@app.command(
    epilog="Examples: `leaf report dropout_02`   `leaf report main dropout_02 augmented --to side_by_side.html`"
)
def report(
    revisions: Annotated[
        list[str], typer.Argument(help="git revisions, experiments, workspace; several seeds: REV,REV", metavar="REV…")
    ],
    to: Annotated[str, typer.Option(help="where the page goes")] = "reports/side_by_side.html",
) -> None:
    """Put several runs on one page; one alone stands beside the workspace."""
    from leaf.reporting import report

    typer.echo(report(revisions, to))


@app.command(
    epilog="Examples: `leaf predict leaf.jpg`   `leaf predict photographs --csv > out.csv`   "
    "`leaf predict 'field/**/*.jpg' --heatmap maps`   `find . -name '*.png' | leaf predict - --json`"
)
def predict(
    paths: Annotated[
        list[str], typer.Argument(help="images, folders, patterns, or - for a list on standard input", metavar="PATH…")
    ],
    model: Annotated[str, typer.Option(help="a .keras file")] = "models/model.keras",
    as_json: Annotated[bool, typer.Option("--json", help="one JSON array")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="a CSV table")] = False,
    views: Annotated[int | None, typer.Option(help="views of an image averaged, 1 to 16  [as evaluated]")] = None,
    heatmap: Annotated[Path | None, typer.Option(help="folder for pictures of where the network looked")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress bar, no remarks")] = False,
) -> None:
    """Predict photographs: label, probability of the second class, and whether they are of a kind the model knows.

    Exit status 1 where an image could not be read: it is named at the end and the rest is done.
    """
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    from leaf.serving.command import predict

    form = "json" if as_json else "csv" if as_csv else "text"
    raise typer.Exit(predict(paths, model, form, views, heatmap, quiet))


@app.command(epilog="Example: `leaf serve --port 8000`, then open http://127.0.0.1:8000")
def serve(
    model: Annotated[str, typer.Option(help="a .keras file")] = "models/model.keras",
    host: Annotated[str, typer.Option(help="address to listen on; 0.0.0.0 lets others in")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one", min=0, max=65535)] = 8000,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no line for each request")] = False,
) -> None:
    """Open a page where photographs are dropped and judged, and a JSON API beside it (/docs)."""
    from leaf.serving.server import serve

    serve(model, host, port, quiet)


@app.command(epilog="Examples: `leaf export --format onnx`   `leaf export --format codalab --to submission.zip`")
def export(
    form: Annotated[str, typer.Option("--format", "-f", help="keras, savedmodel, onnx, litert or codalab")],
    to: Annotated[Path | None, typer.Option(help="file or folder to write  [beside the model]")] = None,
    model: Annotated[str, typer.Option(help="a .keras file")] = "models/model.keras",
) -> None:
    """Write the model for other programs: float32 images (N, H, W, 3) in 0..255 in, class probabilities out."""
    from leaf.exporting import export

    typer.echo(export(model, form, to))


def main() -> None:
    """Run `leaf`; a person's mistake ends in one line and exit status 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's own remarks on its processor
    with one_line_errors():
        app()
