"""The wheel works outside the checkout; `make` repairs a broken virtual environment."""

import email
import email.message
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel; setuptools would include stale files of build/."""
    shutil.rmtree(ROOT / "build", ignore_errors=True)
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT], check=True)
    (built,) = folder.glob("*.whl")
    return built


def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("METADATA"))
        return email.message_from_bytes(archive.read(name))


def required(wheel: Path, extra: str = "") -> set[str]:
    """Return the packages that the wheel requires with an extra."""
    names = set()
    for line in metadata(wheel).get_all("Requires-Dist", []):
        name, _, condition = line.partition(";")
        if not condition or f"'{extra}'" in condition.replace('"', "'"):
            names.add(re.split(r"[=\[]", name)[0].strip().lower())
    return names


@pytest.mark.slow
def test_wheel_without_extras_requires_no_tensorflow(wheel: Path) -> None:
    base = required(wheel)
    assert {"onnxruntime", "pandas", "fastapi", "pillow"} <= base
    assert base & {"tensorflow", "keras", "dvc", "dvclive"} == set()
    assert {"dvc", "tensorflow", "keras", "imbalanced-learn"} <= required(wheel, "train")
    tools = {"pytest", "playwright", "ruff", "mypy", "import-linter", "hypothesis", "schemathesis"}
    assert (base | required(wheel, "train") | required(wheel, "gpu")) & tools == set()


@pytest.mark.slow
def test_wheel_contains_stages_template_and_types(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert archive.read("leaf/project/template/pipeline.yaml") == (ROOT / "dvc.yaml").read_bytes()
        assert archive.read("leaf/project/template/params.yaml") == (ROOT / "params.yaml").read_bytes()
        assert archive.read("leaf/project/template/experiments.yaml") == (ROOT / "experiments.yaml").read_bytes()
    assert {"stages/train.py", "leaf/py.typed", "leaf/_version.py", "leaf/report/templates/report.html.j2"} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


@pytest.mark.slow
def test_sdist_and_wheel_pass_twine(tmp_path: Path) -> None:
    pytest.importorskip("build")
    pytest.importorskip("twine")
    subprocess.run([sys.executable, "-m", "build", "-q", "--outdir", tmp_path, ROOT], check=True)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".gz", ".whl"]
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *tmp_path.iterdir()], check=True)


class Installed:
    """A virtual environment with the wheel and this environment's packages, and a project outside the checkout."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder / "project"
        self.venv = folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.venv], check=True)
        # A plain path: the editable install of the checkout is not activated.
        site = next(self.venv.glob("lib/python*/site-packages"))
        (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
        self.site = site
        self.install(wheel)

    def install(self, wheel: Path) -> None:
        command = [sys.executable, "-m", "pip", "-q", "--python", self.venv / "bin/python", "install", "--no-deps"]
        subprocess.run([*command, "--force-reinstall", wheel], check=True)

    def run(self, *command: str, cwd: Path | None = None, status: int = 0, **variables: str) -> str:
        path = os.pathsep.join(map(str, (self.venv / "bin", Path(sys.executable).parent, ENVIRONMENT["PATH"])))
        environment = {**ENVIRONMENT, "PATH": path, "LEAF_STATE": str(self.folder.parent / "state"), **variables}
        done = subprocess.run(command, cwd=cwd or self.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout + done.stderr

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", "-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-qm", "state")


def with_changed_stage(wheel: Path, folder: Path, name: str) -> Path:
    """Copy the wheel with a comment appended to a file."""
    changed = folder / wheel.name
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(changed, "w") as new:
        for entry in old.infolist():
            new.writestr(entry, old.read(entry) + (b"# changed\n" if entry.filename == name else b""))
    return changed


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_wheel_runs_init_repro_experiment_upgrade_and_predict(wheel: Path, small: dict, tmp_path: Path) -> None:
    installed = Installed(tmp_path, wheel)
    assert str(installed.site) in installed.run("python", "-c", "import leaf; print(leaf.__file__)", cwd=tmp_path)
    assert metadata(wheel)["Version"] in installed.run("leaf", "--version", cwd=tmp_path)
    installed.run("leaf", "init", "project", cwd=tmp_path)
    path = installed.folder / "params.yaml"
    values = yaml.safe_load(path.read_text())
    for key, value in small.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) else value
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    installed.commit()
    assert "code.json" not in installed.run("leaf", "check")
    assert "Running stage 'train'" in installed.run("dvc", "repro")
    assert "Running stage" not in installed.run("dvc", "repro")
    installed.commit()
    experiment = installed.run("dvc", "exp", "run", "-n", "half", "-S", "threshold=0.4")
    assert "Running stage 'evaluate'" in experiment
    assert "Running stage 'train'" not in experiment
    installed.run("dvc", "metrics", "diff")
    installed.run("git", "checkout", "-q", ".")
    installed.run("dvc", "checkout", "-q")

    installed.install(with_changed_stage(wheel, tmp_path, "stages/evaluate.py"))
    assert "code.json: differs from the installed leaf in evaluate" in installed.run("leaf", "check")
    assert "reruns evaluate, and report if their inputs change" in installed.run("leaf", "upgrade")
    rerun = installed.run("dvc", "repro")
    assert re.findall(r"Running stage '(\w+)'", rerun)[:1] == ["evaluate"]
    assert set(re.findall(r"Running stage '(\w+)'", rerun)) <= {"evaluate", "report"}
    installed.install(with_changed_stage(wheel, tmp_path, "leaf/serve/page/index.html"))
    installed.run("leaf", "upgrade")
    installed.run("git", "checkout", "-q", "code.json", "dvc.lock")

    blocked = tmp_path / "blocked"  # an environment without TensorFlow
    for name in ("tensorflow", "keras", "jax", "dvc"):
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text(f"raise ImportError('{name} is not installed')")
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "new.png")
    assert "healthy" in installed.run("leaf", "predict", str(tmp_path / "new.png"), PYTHONPATH=str(blocked))


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    ["a dangling python", pytest.param("a dangling folder", marks=pytest.mark.full), "no packages of this version"],
)
def test_broken_virtual_environment_is_recreated(tmp_path, fault):
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    (tmp_path / "requirements.txt").write_text("")
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "leaf"\nversion = "0"\n[tool.setuptools]\npy-modules = []\n'
    )
    venv = tmp_path / ".venv"
    if fault == "a dangling folder":
        venv.symlink_to(tmp_path / "gone")
    else:
        (venv / "bin").mkdir(parents=True)
        gone = fault == "a dangling python"
        (venv / "bin" / "python").symlink_to("/gone/python3" if gone else Path(sys.executable).resolve())
        (venv / "pyvenv.cfg").write_text("home = /usr/bin\n")
        (venv / "installed").touch()  # newer than the requirements: nothing seems to be left to do
    made = subprocess.run(
        ["make", ".venv/installed"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    subprocess.run([venv / "bin" / "python", "-m", "pip", "--version"], check=True, capture_output=True)
    assert (venv / "installed").is_file()
