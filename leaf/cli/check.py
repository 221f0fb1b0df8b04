"""`leaf check`: what can be known before the first stage runs; DVC deletes a stage's outputs before it runs it."""

import os
from pathlib import Path

import typer

from leaf import params
from leaf.errors import LeafError
from leaf.similarity.decisions import COLUMNS
from leaf.store import read_table, read_yaml, sha256

app = typer.Typer()


def check() -> str:
    """Check params.yaml, the data set and the files it names. Returns one line; raises LeafError for a mistake."""
    choices = params.load()
    dataset = Path(choices.dataset)
    if not dataset.exists() and not _is_made(choices.dataset):
        raise LeafError(f"dataset: {dataset}: no such file or folder; valid: an .npz file or a folder of class folders")
    if dataset.is_dir():
        refuse_undecodable_names(dataset)
    for reference in choices.references if isinstance(choices.references, list) else []:
        if isinstance(reference, str) and not Path("data/references", reference).is_file():
            raise LeafError(f"references: {reference}: no such file in data/references")
    read_table("data/overrides.csv", columns=COLUMNS)
    if choices.weights not in ("random", "imagenet"):
        weights = Path(choices.weights)
        if not weights.is_file():
            raise LeafError(f"weights: {weights}: no such file; valid: random, imagenet, or a weights file")
        if (found := sha256(weights)) != choices.weights_sha256:
            raise LeafError(f"weights_sha256: {choices.weights_sha256 or 'empty'}; {weights} has {found}")
    return f"{params.PARAMS_FILE}: valid; dataset: {choices.dataset}"


def refuse_undecodable_names(folder: Path) -> None:
    """DVC cannot hash a file whose name is not UTF-8, and says so with a traceback: name it first."""
    for parent, folders, files in os.walk(os.fsencode(folder)):
        for name in folders + files:
            try:
                name.decode("utf-8")
            except UnicodeDecodeError:
                shown = os.path.join(parent, name).decode("utf-8", "backslashreplace")  # noqa: PTH118 (bytes)
                raise LeafError(f"dataset: {shown}: the name is not UTF-8; rename the file") from None


def _is_made(path: str) -> bool:
    """Whether a stage makes `path`, or a .dvc file beside it tells where to pull it from."""
    if Path(f"{path}.dvc").is_file():
        return True
    stages = read_yaml(params.PIPELINE_FILE)["stages"]
    return any(
        path == (out if isinstance(out, str) else next(iter(out)))
        for stage in stages.values()
        for out in stage.get("outs", [])
    )


@app.command(epilog="Example: `leaf check`, as `make run` does before the first stage")
def command() -> None:
    """Check params.yaml, the data set and the files it names before any stage runs."""
    typer.echo(check())
