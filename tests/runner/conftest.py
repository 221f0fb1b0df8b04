"""Fixtures: a tiny DVC project with its remotes, a real sshd and a real Slurm cluster, all in temporary folders."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # --import-mode=importlib does not add this folder
from cluster import Cluster, start_cluster
from network import FAR, Network, new_network
from servers import Sshd, start_sshd
from tiny import EXPERIMENTS, INGEST, PARAMS, PIPELINE, TRAIN, Project, run

from leaf.clean.decisions import COLUMNS


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create the tiny project once; each test copies it."""
    home = tmp_path_factory.mktemp("template")
    project = home / "project"
    (project / "data" / "raw").mkdir(parents=True)
    (project / "data" / "raw" / "leaves.txt").write_text("leaf\n")
    for name in ("masks", "unlabelled"):
        (project / "data" / name).mkdir()
        (project / "data" / name / ".gitkeep").touch()
    (project / "data" / "overrides.csv").write_text(",".join(COLUMNS) + "\n")
    (project / "data" / "pinned.csv").write_text("file_hash,split\n")
    (project / "data" / "labels.csv").write_text("file,label\n")
    for name, text in {
        "dvc.yaml": PIPELINE,
        "params.yaml": PARAMS,
        "ingest.py": INGEST,
        "train.py": TRAIN,
        "experiments.yaml": EXPERIMENTS,
        ".gitignore": "/ingested.txt\n/model.txt\n/data/raw/leaves.txt\n",
    }.items():
        (project / name).write_text(dedent(text))
    run("git", "init", "-q", "-b", "main", ".", cwd=project)
    run("git", "config", "user.name", "A. Grower", cwd=project)
    run("git", "config", "user.email", "grower@example.org", cwd=project)
    run("dvc", "init", "-q", cwd=project)
    run("dvc", "config", "core.analytics", "false", cwd=project)
    run("dvc", "add", "-q", "data/raw/leaves.txt", cwd=project)
    run("git", "add", "-A", cwd=project)
    run("git", "commit", "-q", "-m", "A tiny project", cwd=project)
    return project


@pytest.fixture(scope="session")
def new_project(template: Path) -> Callable[[Path], Project]:
    """Return a function that creates a project without runner.yaml in a folder."""

    def make(home: Path) -> Project:
        path = home / "project"
        shutil.copytree(template, path, symlinks=True)
        run("git", "init", "-q", "--bare", str(home / "origin.git"), cwd=home)
        run("git", "remote", "add", "origin", str(home / "origin.git"), cwd=path)
        config = (path / ".dvc" / "config").read_text().replace("[core]\n", "[core]\n    remote = store\n", 1)
        config += f"['remote \"store\"']\n    url = {home / 'store'}\n"
        project = Project(path, home / "target")
        project.commit(**{".dvc/config": config})
        return project

    return make


@pytest.fixture
def project(new_project: Callable[[Path], Project], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Create a tiny project, make it the working directory, and return it."""
    made = new_project(tmp_path)
    monkeypatch.chdir(made.path)
    return made


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """Start an OpenSSH server; skip if none is installed."""
    try:
        server = start_sshd(tmp_path_factory.mktemp("sshd"))
    except FileNotFoundError as missing:
        pytest.skip(f"{missing} is not installed (apt-get install openssh-server)")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start a Slurm cluster and set SLURM_CONF; skip if that is impossible."""
    try:
        cluster = start_cluster(tmp_path_factory.mktemp("slurm"))
    except (FileNotFoundError, PermissionError) as reason:
        pytest.skip(str(reason))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(cluster.config))
        yield cluster
    cluster.stop()


@pytest.fixture
def far_sshd(tmp_path: Path) -> Iterator[tuple[Sshd, Network]]:
    """Start an OpenSSH server in its own network; skip if that is impossible."""
    try:
        network = new_network()
    except (PermissionError, FileNotFoundError) as reason:
        pytest.skip(str(reason))
    folder = tmp_path / "far"
    folder.mkdir()
    server = None
    try:
        server = start_sshd(folder, FAR, network.inside)
        yield server, network
    except FileNotFoundError as missing:
        pytest.skip(f"{missing} is not installed (apt-get install openssh-server)")
    finally:
        if server:
            server.stop()
        network.remove()


@pytest.fixture(scope="session")
def on_box(sshd: Sshd) -> Callable[..., Project]:
    """Return a function that commits a runner.yaml whose target `box` is `server` (default: the fixture `sshd`)."""

    def configure(project: Project, server: Sshd = sshd, **environment: str) -> Project:
        target = {
            "engine": "ssh",
            "host": "box",
            "ssh_config": str(server.config),
            "folder": str(project.target),
            "python": sys.executable,
            "path": [str(Path(sys.executable).parent)],
            "environment": environment,
        }
        project.commit(**{"runner.yaml": json.dumps({"targets": {"box": target}})})  # JSON is valid YAML
        return project

    return configure


@pytest.fixture(scope="session", autouse=True)
def _environment() -> Iterator[None]:
    """Use the programs of this environment and ignore the user's git settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        yield
