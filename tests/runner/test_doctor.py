"""Test `leaf doctor` on a target whose environment does not exist yet or cannot be created."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tiny import Project

from leaf.runner.config import check_target
from leaf.runner.doctor import PYTHONS, examine

ROOT = Path(__file__).parents[2]
CARD = "0, NVIDIA L4, 550.54.15, 23034 MiB"


@pytest.fixture
def said(project: Project, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Return a function that examines this machine with stub programs and returns the result and note of each check."""

    def look(cards: str, python: str = "echo 3.12", gpus: list[int] | None = None) -> dict[str, str]:
        programs = tmp_path / "programs"
        programs.mkdir()
        for name, script in (("nvidia-smi", f"echo '{cards}'"), ("python3.12", python), ("python", "exit 1")):
            (programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (programs / name).chmod(0o755)
        setup = 'python3.12 -m venv "$LEAF_ENVIRONMENT"'
        target = {"engine": "local", "gpus": gpus or [0], "setup": setup, "path": [str(programs)]}
        return {found.check: f"{found.good} {found.note}" for found in examine("x", check_target("x", target))}

    return look


def test_gpu_is_checked_before_keras_is_installed(said: Callable[..., dict[str, str]]) -> None:
    found = said(CARD)
    assert found["keras"] == "True not installed yet; the first job's `setup` installs it"
    assert found["python"] == "True 3.12"
    assert found["driver"] == "True 0: NVIDIA L4, 550.54.15, 23034 MiB"


def test_missing_gpu_old_driver_and_python_are_reported(said: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    found = said(CARD.replace("550.54.15", "470.256.02"), python="echo 3.10")
    assert found["driver"].endswith("CUDA 12 requires driver 525 or newer")
    assert found["python"].startswith("False 3.10; `setup` requires Python 3.11–3.13 with venv; see docs/remote.md")
    (tmp_path / "programs").rename(tmp_path / "before")
    found = said(CARD, python="echo 'No module named ensurepip' >&2; exit 1", gpus=[0, 3])
    assert found["driver"] == "False no GPU 3; valid `gpus`: [0]"
    assert found["python"].startswith("False No module named ensurepip; ")


def test_supported_pythons_match_pyproject() -> None:
    oldest, newest = PYTHONS
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert asked == f">={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}"


def test_setup_creates_wrappers_that_run_in_the_image(tmp_path: Path) -> None:
    """Run the line in docs/remote.md with a stub `apptainer` that prints its arguments."""
    page = (ROOT / "docs/remote.md").read_text()
    setup = next(line.strip() for line in page.splitlines() if "install -D containers/in_image" in line)
    apptainer = tmp_path / "bin" / "apptainer"
    apptainer.parent.mkdir()
    apptainer.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    apptainer.chmod(0o755)
    environment = {"PATH": f"{apptainer.parent}:/usr/bin:/bin", "LEAF_ENVIRONMENT": str(tmp_path), "HOME": "/home/a"}
    subprocess.run(["sh", "-e", "-c", setup], cwd=ROOT, env=environment, check=True)
    for name in ("dvc", "python"):
        command = [str(tmp_path / "bin" / name), "-m", "a b"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        told = ["exec", "--nv", "--bind", str(tmp_path), "/home/a/leaf/leaf.sif", name, "-m", "a b", ""]
        assert done.stdout.split("|") == told


def test_containers_folder_contains_the_recipes_and_the_wrapper() -> None:
    assert [path.name for path in sorted((ROOT / "containers").iterdir())] == ["Dockerfile", "in_image", "leaf.def"]
    assert (ROOT / "containers" / "in_image").read_text().startswith("#!/bin/sh\n")


def steps(recipe: str) -> list[str]:
    """Return the commands of a container recipe (RUN or %post), in order and without flags and comments."""
    text = (ROOT / "containers" / recipe).read_text().replace("\\\n", " ")
    if recipe == "leaf.def":
        lines = text.partition("%post\n")[2].partition("\n%")[0].splitlines()
    else:
        lines = [part for line in text.splitlines() if line.startswith("RUN ") for part in line[4:].split("&&")]
    return [" ".join(word for word in line.split() if not word.startswith("--")) for line in lines if line.strip()]


def test_both_recipes_install_the_same_packages() -> None:
    docker, apptainer = steps("Dockerfile"), steps("leaf.def")
    assert [line for line in docker if line.startswith("apt-get")] == apptainer[:2]
    installs = [line for line in docker + apptainer if line.startswith("pip install")]
    assert [Path(line.split()[2]).name for line in installs] == ["requirements-gpu.txt"] * 2


@pytest.mark.slow
@pytest.mark.full  # the CUDA wheels take several gigabytes
@pytest.mark.timeout(1200)
def test_container_packages_resolve(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    subprocess.run(
        [*command, "--report", tmp_path / "found.json", "-r", ROOT / "requirements-gpu.txt"], cwd=tmp_path, check=True
    )
    found = json.loads((tmp_path / "found.json").read_text())["install"]
    assert {"tensorflow", "jax-cuda12-plugin", "nvidia-cudnn-cu12"} <= {each["metadata"]["name"] for each in found}


def test_all_gpu_settings_use_the_same_backend() -> None:
    targets = yaml.safe_load((ROOT / "runner.yaml").read_text())["targets"]
    stated = {name: target["environment"]["KERAS_BACKEND"] for name, target in targets.items()}
    assert stated.pop("local") == "tensorflow"
    assert set(stated.values()) == {"jax"}
    assert "ENV KERAS_BACKEND=jax" in (ROOT / "containers/Dockerfile").read_text()
    assert 'export KERAS_BACKEND="${KERAS_BACKEND:-jax}"' in (ROOT / "containers/leaf.def").read_text()
    workflow = yaml.safe_load((ROOT / ".github/workflows/gpu.yml").read_text())
    submits = [step["run"] for step in workflow["jobs"]["experiments"]["steps"] if "leaf submit" in step.get("run", "")]
    assert ["--on card" in run for run in submits] == [True]
    assert targets["card"]["gpus"] == [0]
