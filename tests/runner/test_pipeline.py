"""The small pipeline is bit-identical on every engine; one training run uses two nodes."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import Cluster
from servers import Sshd
from tiny import Project, run

from leaf.verify import PAGES

ENGINES = ("local", "ssh", "slurm")
pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def engines(
    clone: Callable[[str], Any],
    small: dict[str, Any],
    programs: Path,
    sshd: Sshd,
    tmp_path_factory: pytest.TempPathFactory,
) -> Project:
    """Return a small clone with an origin, a DVC remote and a target for each engine."""
    made = clone("engines")
    made.set(**small)
    home = tmp_path_factory.mktemp("targets")
    project = Project(made.folder, home / "slurm")
    run("git", "init", "-q", "--bare", str(home / "origin.git"), cwd=home)
    project.git("remote", "set-url", "origin", str(home / "origin.git"))
    run("dvc", "remote", "add", "-q", "-d", "store", str(home / "store"), cwd=project.path)
    # The number of threads determines the order of summation and thus the last bits.
    threads = {name: value for name, value in os.environ.items() if name.endswith("_THREADS")}
    shell = {
        "python": sys.executable,
        "path": [str(programs), str(Path(sys.executable).parent)],
        "environment": threads,
    }
    slurm = {"engine": "slurm", "folder": str(home / "slurm"), **shell}
    jax = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    targets = {
        "local": {"engine": "local"},
        "ssh": {"engine": "ssh", "host": "box", "ssh_config": str(sshd.config), "folder": str(home / "ssh"), **shell},
        "slurm": slurm,
        "pair": {**slurm, "nodes": 2, "environment": threads | jax},
    }
    project.commit(**{"runner.yaml": json.dumps({"targets": targets})})
    return project


@pytest.fixture(scope="module")
def everywhere(engines: Project, cluster: Cluster) -> Project:
    """Run the same experiment on all engines in parallel and fetch the results."""
    for engine in ENGINES:
        engines.leaf("submit", "--on", engine, "--name", engine, "-S", "drawn.seed=5")
    fetched(engines, *ENGINES)
    return engines


def fetched(project: Project, *names: str) -> None:
    try:
        project.leaf("fetch", "--wait", "--every", "1", *names)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{''.join(project.leaf('logs', name)[-3000:] for name in names)}") from None


def test_engines_are_bit_identical(everywhere: Project) -> None:
    def outputs(name):
        stages = yaml.safe_load(everywhere.file(name, "dvc.lock"))["stages"]
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}

    here, *there = map(outputs, ENGINES)
    assert here.keys() > {"models/model.keras", "data/scored/predictions.csv", "metrics/evaluate.json"}
    for other in there:
        assert {path for path in here if here[path] != other[path]} <= PAGES
    scores = json.loads(everywhere.file("slurm", "metrics/evaluate.json"))
    assert 0 <= scores["test"]["accuracy"] <= 1


def test_dvc_lists_and_gets_the_model(everywhere: Project) -> None:
    shown = run("dvc", "exp", "show", "--csv", cwd=everywhere.path)
    assert {line.partition(",")[0] for line in shown.splitlines()} >= set(ENGINES)
    run("dvc", "get", "-q", ".", "models/model.keras", "--rev", everywhere.experiments()["ssh"], cwd=everywhere.path)
    (everywhere.path / "model.keras").unlink()


def test_a_training_run_uses_two_nodes(everywhere: Project) -> None:
    settings = ["-S", "drawn.seed=5", "-S", "distribution=data_parallel"]
    everywhere.leaf("submit", "--on", "pair", "--name", "pair", *settings)
    fetched(everywhere, "pair")
    assert "2 epochs on 2 devices" in everywhere.leaf("logs", "pair")
    assert json.loads(everywhere.file("pair", "metrics/train.json"))["epochs"] == 2
