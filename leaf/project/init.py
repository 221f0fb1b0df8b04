"""`leaf init`: create a DVC project in a new or existing git repository."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from leaf import __version__, params
from leaf.check import check
from leaf.errors import LeafError, output_of
from leaf.ingest.ingest import survey
from leaf.project.pipeline import CODE_FILE, TEMPLATE, installed_pipeline, load_yaml, write_code_file, write_yaml

DISTRIBUTION = "leaf-dvc"
_OWN = (params.PIPELINE_FILE, params.PARAMS_FILE, "runner.yaml", CODE_FILE)  # never overwritten
_LINES = (".gitignore", ".gitattributes", ".dvcignore")  # if a file exists, only missing lines are appended
_TABLES = ("data/labels.csv", "data/overrides.csv", "data/pinned.csv", "data/reviewed.csv")
FOLDERS = ("data/masks", "data/raw", "data/references", "data/unlabelled", "metrics")
_SHADOWS = ("leaf", "stages")  # folder names that Python would import instead of the installed packages


def init_project(folder: Path, dataset: Path | None = None) -> list[str]:
    """Create a project in `folder` and return the lines to print.

    Args:
        folder: a new or existing folder, inside a git repository or not. Existing files are kept.
        dataset: a folder of images or an .npz file; its path and classes are written to params.yaml.

    Raises:
        LeafError: if the folder already has a project, git or DVC is missing, or `leaf check` rejects the data set;
            nothing is written.
    """
    for program, package in (("git", "git"), ("dvc", f"{DISTRIBUTION}[train]")):
        if shutil.which(program) is None:
            raise LeafError(f"{program}: not found. Install {package}.")
    folder = folder.resolve()
    for name in _OWN:
        if os.path.lexists(folder / name):
            raise LeafError(
                f"{folder / name}: already exists. Choose a new folder with `leaf init DIR`; a repository can "
                "contain several projects."
            )
    for name in _SHADOWS:
        if (folder / name).is_dir():
            raise LeafError(f"{folder / name}: shadows the Python package {name}. Rename it or choose a new folder.")
    settings, overview = _choose_settings(folder, dataset) if dataset else ({}, [])
    folder.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["git", "rev-parse"], cwd=folder, capture_output=True, check=False).returncode:
        output_of("git", "init", "--quiet", cwd=folder)
    if subprocess.run(["dvc", "root"], cwd=folder, capture_output=True, check=False).returncode:
        subfolder = [] if (folder / ".git").exists() else ["--subdir"]
        output_of("dvc", "init", "--quiet", *subfolder, cwd=folder)
    write_files(folder, settings)
    command = "dvc repro" if dataset else "leaf start FOLDER"
    steps = f"cd {folder}; git add -A && git commit -m 'Add the classifier'; {command}"
    return [*overview, f"{folder}: created a leaf {__version__} project. Next: {steps}"]


def write_files(folder: Path, settings: dict[str, object]) -> None:
    """Write the template's files to `folder`, with `settings` in params.yaml. Existing tables and README are kept."""
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / ".gitkeep").touch()
    write_yaml(installed_pipeline(), folder / params.PIPELINE_FILE)
    values = load_yaml(TEMPLATE / params.PARAMS_FILE)
    values.update(settings)
    write_yaml(values, folder / params.PARAMS_FILE)
    for name in _LINES:
        _append_missing_lines(folder / name, (TEMPLATE / name[1:]).read_text(encoding="utf-8"))
    for name, extra in (("requirements.txt", "train"), ("requirements-gpu.txt", "gpu")):
        _write_new(folder / name, f"{DISTRIBUTION}[{extra}]=={__version__.partition('+')[0]}\n")
    for name in (*_TABLES, "README.md", "runner.yaml"):
        _write_new(folder / name, (TEMPLATE / name).read_text(encoding="utf-8"))
    write_code_file(folder)


def _choose_settings(folder: Path, dataset: Path) -> tuple[dict[str, object], list[str]]:
    """Run `leaf check` on the data set in a temporary project; return the resulting settings and the output."""
    dataset = dataset.resolve()
    if not dataset.exists():
        raise LeafError(f"--dataset: {dataset}: no such file or folder. Use an .npz file or a folder of images.")
    with tempfile.TemporaryDirectory() as scratch:
        write_files(Path(scratch), {})
        with contextlib.chdir(scratch):
            _, names = survey(dataset, "auto", labels="data/labels.csv")
            _, overview = check({"dataset": str(dataset), "classes": names})
    path = dataset.relative_to(folder) if dataset.is_relative_to(folder) else dataset
    return {"dataset": str(path), "classes": names}, overview.splitlines()


def _append_missing_lines(path: Path, text: str) -> None:
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    missing = [line for line in text.splitlines() if line and line not in old.splitlines()]
    if missing:
        joint = "" if not old or old.endswith("\n") else "\n"
        path.write_text(old + joint + ("\n".join(missing) + "\n" if old else text), encoding="utf-8")


def _write_new(path: Path, text: str) -> None:
    if not os.path.lexists(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
