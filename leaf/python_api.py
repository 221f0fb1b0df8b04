"""`leaf.fit`: run the stages on a data set in a folder of its own, without DVC."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leaf import params
from leaf.errors import LeafError
from leaf.experiments import EXPERIMENTS_FILE, experiment, with_settings
from leaf.store import read_yaml, replacing, sha256

if TYPE_CHECKING:
    from leaf.serve.classifier import Classifier

PROJECT = Path(__file__).parent / "project" / "template"


def fit(dataset: str | Path, recipe: str = "probe", folder: str | Path = "leaf-run", **settings: Any) -> "Classifier":
    """Run the pipeline's stages on photographs, in a folder of its own, without DVC.

    Args:
        dataset: a folder with a sub-folder per class, or an .npz file.
        recipe: a row of experiments.yaml.
        folder: where the tables, the model and the report are afterwards, under the names that they have in the
            project; those of an earlier fit are replaced.
        settings: keys of params.yaml, laid over the row's; `**{"learning_rate.base": 1e-5}` for one of a group. A file
            of weights needs no weights_sha256.

    Returns:
        The model, as `leaf.load` gives it.

    Raises:
        LeafError: where the project or a stage refuses, with its line.

    Example:
        >>> import leaf
        >>> model = leaf.fit("/home/me/leaves", classes="auto")
        >>> model.predict("/home/me/new_leaf.jpg")
    """
    chosen = {**experiment(recipe, PROJECT / EXPERIMENTS_FILE).set, **settings, "dataset": str(Path(dataset).resolve())}
    for key in chosen.keys() & {"labels", "masks", "weights"}:
        if Path(chosen[key]).exists():
            chosen[key] = str(Path(chosen[key]).resolve())
            if key == "weights":
                chosen.setdefault("weights_sha256", sha256(chosen[key]))
    values = with_settings(read_yaml(PROJECT / params.PARAMS_FILE), chosen, "fit")
    new_project(folder, values)
    stages = read_yaml(PROJECT / "pipeline.yaml")["stages"]
    run_stages(folder, [name for name in stages if name != "synthesize"])

    import leaf  # which imports more when it loads a model

    return leaf.load(Path(folder, "models/model.onnx"))


def new_project(folder: str | Path, values: params.Params) -> None:
    """Make `folder` what the stages run in: the project's dvc.yaml and small tables, and `values` as params.yaml.

    Raises LeafError where it holds something else.
    """
    import yaml

    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / params.PIPELINE_FILE).is_file():
        raise LeafError(f"{folder}: holds other files; valid: a new folder, or one of an earlier fit")
    if (folder / "leaf").is_dir() or (folder / "stages").is_dir():
        raise LeafError(f"{folder}: is the project itself; valid: a folder of its own")
    for name in ("data/references", "data/masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in ("data/labels.csv", "data/overrides.csv", "data/pinned.csv"):
        shutil.copy(PROJECT / name, folder / name)
    shutil.copy(PROJECT / "pipeline.yaml", folder / params.PIPELINE_FILE)
    with replacing(folder / params.PARAMS_FILE) as partial:
        partial.write_text(yaml.safe_dump(values.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def run_stages(folder: str | Path, names: Iterable[str]) -> None:
    """Run stages in `folder`, one after another, and print what they say. Raises LeafError where one fails."""
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    for name in names:
        command = [sys.executable, "-m", f"stages.{name}"]
        done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
        print(done.stdout, end="", flush=True)
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise LeafError(f"{name}: {said[-1].removeprefix('error: ')}")
