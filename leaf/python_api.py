"""`leaf.fit`: train a model in one call, without DVC."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leaf import params
from leaf.errors import LeafError
from leaf.experiments import EXPERIMENTS_FILE, committed_params, experiment, with_settings
from leaf.project.pipeline import TEMPLATE
from leaf.store import plain, read_yaml, replacing, sha256

if TYPE_CHECKING:
    from leaf.serve.classifier import Classifier


def fit(dataset: str | Path, recipe: str = "probe", folder: str | Path = "leaf-run", **settings: Any) -> "Classifier":
    """Train a model by running all pipeline stages in a separate folder, without DVC.

    Parameters in `settings` override those of the row, which override leaf's params.yaml (in a clone of leaf, the
    committed version). `classes` defaults to `auto`. The overrides, pins, labels and masks of the current project are
    ignored.

    Args:
        dataset: a folder with a subfolder per class, or an .npz file.
        recipe: a row of experiments.yaml.
        folder: output folder for tables, model and report. Another fit replaces them, but keeps overrides and pins.
        settings: keys of params.yaml, such as `dropout=0.2` or `**{"learning_rate.base": 1e-5}`. A weights file does
            not require weights_sha256.

    Returns:
        The model, as returned by `leaf.load`.

    Raises:
        LeafError: if the parameters are invalid, leaf-dvc[train] is not installed, or a stage fails.

    Example:
        >>> import leaf
        >>> model = leaf.fit("/home/me/leaves", classes="auto")
        >>> model.predict("/home/me/new_leaf.jpg")
    """
    if find_spec("tensorflow") is None:
        raise LeafError("tensorflow: not installed. Run `pip install 'leaf-dvc[train]'`.")
    chosen = {"classes": "auto", **experiment(recipe, TEMPLATE / EXPERIMENTS_FILE).set, **plain(settings)}
    chosen["dataset"] = str(Path(dataset).resolve())
    for key in chosen.keys() & {"labels", "masks", "unlabelled", "weights"}:
        if Path(chosen[key]).exists():
            chosen[key] = str(Path(chosen[key]).resolve())
            if key == "weights":
                chosen.setdefault("weights_sha256", sha256(chosen[key]))
    values = with_settings(committed_params(TEMPLATE), chosen, "fit")
    new_project(folder, values)
    stages = read_yaml(TEMPLATE / "pipeline.yaml")["stages"]
    run_stages(folder, [name for name in stages if name != "synthesize"])

    from leaf.serve.classifier import load  # slow to import

    return load(Path(folder, "models/model.onnx"))


def new_project(folder: str | Path, values: params.Params) -> None:
    """Create dvc.yaml, params.yaml with `values`, and empty tables of overrides, pins and labels in `folder`.

    Raises LeafError if `folder` contains other files.
    """
    import yaml

    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / params.PIPELINE_FILE).is_file():
        raise LeafError(f"{folder}: contains other files. Use a new folder or the folder of an earlier fit.")
    if (folder / "leaf").is_dir() or (folder / "stages").is_dir():
        raise LeafError(f"{folder}: contains a leaf or stages folder. Use another folder.")
    for name in ("data/references", "data/masks", "data/unlabelled"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(TEMPLATE / "pipeline.yaml", folder / params.PIPELINE_FILE)
    for name in ("data/labels.csv", "data/overrides.csv", "data/pinned.csv"):
        if not (folder / name).exists():  # copy only the header; the template's rows refer to other images
            header = (TEMPLATE / name).read_text(encoding="utf-8").splitlines()[0]
            (folder / name).write_text(header + "\n", encoding="utf-8")
    with replacing(folder / params.PARAMS_FILE) as partial:
        partial.write_text(yaml.safe_dump(values.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def run_stages(folder: str | Path, names: Iterable[str]) -> None:
    """Run stages in `folder` in order and print their output. Raises LeafError if one fails."""
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    for name in names:
        command = [sys.executable, "-m", f"stages.{name}"]
        done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
        print(done.stdout, end="", flush=True)
        if done.returncode:
            message = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise LeafError(f"{name}: {message[-1].removeprefix('error: ')}")
