"""The wheel works outside the checkout, and `make` repairs a broken virtual environment."""

import email
import email.message
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import urllib.request
import zipfile
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image
from ruamel.yaml import YAML

from leaf import params
from leaf.project.pipeline import installed_pipeline

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
IDENTITY = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org"}
IDENTITY |= {name.replace("AUTHOR", "COMMITTER"): value for name, value in IDENTITY.items()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel without build/, whose stale files setuptools would include."""
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
    """Return the packages that the wheel requires, including those of `extra`."""
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
    assert {"dvc", "tensorflow", "keras", "dvclive"} <= required(wheel, "train")
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

    def __init__(self, folder: Path, wheel: Path, packages: Path) -> None:
        self.project = folder / "project"
        self.venv = folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.venv], check=True)
        self.site = next(self.venv.glob("lib/python*/site-packages"))
        # A plain path does not activate the editable install of the checkout.
        (self.site / "packages.pth").write_text(f"{packages}\n")
        self.install(wheel)

    def install(self, wheel: Path) -> None:
        command = [sys.executable, "-m", "pip", "-q", "--python", self.venv / "bin/python", "install", "--no-deps"]
        subprocess.run([*command, "--force-reinstall", wheel], check=True)

    def environment(self, **variables: str) -> dict[str, str]:
        path = os.pathsep.join(map(str, (self.venv / "bin", *self.programs(), "/usr/bin", "/bin")))
        return {**ENVIRONMENT, "PATH": path, "LEAF_STATE": str(self.project.parent / "state"), **IDENTITY, **variables}

    def programs(self) -> list[Path]:
        return [Path(sys.executable).parent]

    def run(self, *command: str, cwd: Path | None = None, status: int = 0) -> str:
        folder = cwd or self.project
        done = subprocess.run(command, cwd=folder, env=self.environment(), capture_output=True, text=True)
        assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout + done.stderr

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", "state")

    def restore(self) -> None:
        self.run("git", "checkout", "-q", ".")
        self.run("dvc", "checkout", "-q")


class Base(Installed):
    """An environment with only the packages that the wheel requires without extras: no TensorFlow, no DVC."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        packages = folder / "packages"
        packages.mkdir(parents=True)
        for name in closure(required(wheel)):
            files = distribution(name).files or []
            for top in {file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}:
                if not (packages / top).exists():
                    (packages / top).symlink_to(Path(sysconfig.get_path("purelib"), top))
        super().__init__(folder, wheel, packages)

    def programs(self) -> list[Path]:
        return []


def closure(names: Iterable[str]) -> set[str]:
    """Return `names` and all packages that they require on this platform."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in seen:
            seen.add(name)
            required = map(Requirement, distribution(name).requires or [])
            waiting += [each.name for each in required if not each.marker or each.marker.evaluate({"extra": ""})]
    return seen


def with_changed_stage(wheel: Path, folder: Path, name: str) -> Path:
    """Copy the wheel with a comment appended to a file."""
    folder.mkdir(exist_ok=True)
    changed = folder / wheel.name
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(changed, "w") as new:
        for entry in old.infolist():
            new.writestr(entry, old.read(entry) + (b"# changed\n" if entry.filename == name else b""))
    return changed


def set_params(folder: Path, **values: Any) -> None:
    path = folder / "params.yaml"
    chosen = yaml.safe_load(path.read_text())
    for key, value in values.items():
        chosen[key] = {**chosen[key], **value} if isinstance(value, dict) else value
    path.write_text(yaml.safe_dump(chosen, sort_keys=False))


@pytest.fixture(scope="module")
def installed(wheel: Path, small: dict, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Install the wheel in an environment with the [train] packages, and run a small `dvc repro` in a project."""
    folder = tmp_path_factory.mktemp("installed")
    made = Installed(folder, wheel, Path(sysconfig.get_path("purelib")))
    made.run("leaf", "init", "project", cwd=folder)
    made.run("git", "config", "user.name", "A Person")
    made.run("git", "config", "user.email", "person@example.org")
    set_params(made.project, **small)
    made.commit()
    assert "Running stage 'train'" in made.run("dvc", "repro")
    made.commit()
    return made


@pytest.fixture(scope="module")
def base(wheel: Path, installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Base:
    """Install the wheel without extras, and copy the project."""
    folder = tmp_path_factory.mktemp("base")
    shutil.copytree(installed.project, folder / "project")
    return Base(folder, wheel)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(tmp_path / "new.png")
    return tmp_path / "new.png"


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)


@pytest.mark.slow
def test_leaf_is_imported_from_the_wheel(wheel: Path, installed: Installed) -> None:
    assert str(installed.site) in installed.run("python", "-c", "import leaf, stages; print(leaf.__file__)")
    assert metadata(wheel)["Version"] in installed.run("leaf", "--version")


@pytest.mark.slow
def test_second_repro_in_an_installed_project_runs_nothing(installed: Installed) -> None:
    assert "code.json" not in installed.run("leaf", "check")
    assert stages_run(installed.run("dvc", "repro")) == []


@pytest.mark.slow
def test_experiment_in_an_installed_project_reruns_only_affected_stages(installed: Installed) -> None:
    rerun = stages_run(installed.run("dvc", "exp", "run", "-n", "half", "-S", "threshold=0.4"))
    assert rerun == ["validate", "evaluate", "report"]
    assert "test.balanced_accuracy" in installed.run("dvc", "metrics", "diff", "--all")
    installed.restore()


@pytest.mark.slow
def test_upgrade_reruns_the_changed_stage_and_downstream_stages(
    wheel: Path, installed: Installed, tmp_path: Path
) -> None:
    installed.install(with_changed_stage(wheel, tmp_path / "evaluate", "stages/evaluate.py"))
    assert "code.json: differs from the installed leaf in evaluate" in installed.run("leaf", "check")
    assert "reruns evaluate, and report if its inputs change" in installed.run("leaf", "upgrade")
    rerun = stages_run(installed.run("dvc", "repro"))
    assert rerun[:1] == ["evaluate"]
    assert set(rerun) <= {"evaluate", "report"}
    installed.restore()
    installed.install(with_changed_stage(wheel, tmp_path / "page", "leaf/serve/page/index.html"))
    assert "reruns no stage" in installed.run("leaf", "upgrade")
    installed.install(wheel)
    installed.restore()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_fit_works_in_any_folder(installed: Installed, tmp_path: Path, image: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(80):
        file = tmp_path / "flowers" / ("rose", "tulip")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 128, (32, 32, 3)) + 127 * (number % 2) * np.array([1, 0, 0])
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    settings = ("backbone=cnn_small", "image_size=32", "epochs=1", "frozen_epochs=0")
    words = [word for setting in settings for word in ("-S", setting)]
    installed.run("leaf", "fit", "flowers", "--recipe", "default", *words, cwd=tmp_path)
    model = str(tmp_path / "leaf-run/models/model.onnx")
    assert re.search("rose|tulip", installed.run("leaf", "predict", str(image), "--model", model, cwd=tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_submit_runs_an_experiment_in_an_installed_project(installed: Installed) -> None:
    installed.run("git", "init", "-q", "--bare", "../origin.git")
    installed.run("git", "remote", "add", "origin", str(installed.project.parent / "origin.git"))
    installed.run("leaf", "submit", "--name", "sent", "-S", "threshold=0.3")
    installed.run("leaf", "fetch", "--wait", "sent")
    assert "sent" in installed.run("dvc", "exp", "list", "--name-only").split()


@pytest.mark.slow
def test_base_install_has_no_training_packages(base: Base) -> None:
    modules = ("tensorflow", "keras", "dvc", "dvclive")
    found = base.run("python", "-c", f"from importlib.util import find_spec; print(*map(find_spec, {modules}))")
    assert set(found.split()) == {"None"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "printed"),
    [
        ("predict {image}", "healthy"),
        ("check", "params.yaml: valid"),
        ("results", "balanced accuracy"),
        ("why 3", "split"),
        ("summary --list", "convnext_atto"),
        ("run --list", "transfer"),
    ],
)
def test_base_install_runs(base: Base, image: Path, command: str, printed: str) -> None:
    assert printed in base.run("leaf", *command.format(image=image).split())


@pytest.mark.slow
@pytest.mark.parametrize("command", ["serve", "review"])
def test_base_install_serves_pages(base: Base, command: str) -> None:
    words = ["leaf", command, "--port", "0", "--quiet"]
    environment = base.environment(PYTHONUNBUFFERED="1")
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(words, cwd=base.project, env=environment, **pipes) as server:
        try:
            printed = ""
            while not (address := re.search(r"http://127\.0\.0\.1:\d+\S*", printed)):
                line = server.stdout.readline()  # type: ignore[union-attr]
                assert line, printed
                printed += line
            with urllib.request.urlopen(address[0]) as page:
                assert b"<html" in page.read()
        finally:
            server.terminate()


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["fit {image}", "lr-range", "export --to out --format savedmodel", "compare HEAD workspace", "init new"]
)
def test_base_install_names_the_extra_that_a_command_requires(base: Base, image: Path, command: str) -> None:
    answer = base.run("leaf", *command.format(image=image.parent).split(), status=2)
    assert "leaf-dvc[train]" in answer.splitlines()[-1]
    assert answer.splitlines()[-1].startswith("error: ")


@pytest.mark.slow
def test_project_of_an_earlier_wheel_is_upgraded(wheel: Path, small: dict, tmp_path: Path) -> None:
    def git(*words: str, cwd: Path = ROOT) -> str:
        return subprocess.run(["git", *words], cwd=cwd, check=True, capture_output=True, text=True).stdout.strip()

    # The last commit that modified the parameters or stages of an installed project.
    changes = git("log", "--format=%H", "-1", "--diff-filter=M", "--", "params.yaml", "dvc.yaml")
    if not changes or git("rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("the clone has no history")
    git("clone", "-q", "--shared", str(ROOT), str(tmp_path / "earlier"))
    git("checkout", "-q", f"{changes}^", cwd=tmp_path / "earlier")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, tmp_path / "earlier"]
    subprocess.run(command, check=True)
    (earlier,) = tmp_path.glob("*.whl")

    made = Installed(tmp_path, earlier, Path(sysconfig.get_path("purelib")))
    made.run("leaf", "init", "project", cwd=tmp_path)
    path = made.project / "params.yaml"
    path.write_text(path.read_text().replace("\ndropout: 0.1 ", "\ndropout: 0.25 ") + "# my own comment\n")
    old = yaml.safe_load(path.read_text())
    made.commit()
    made.install(wheel)
    printed = made.run("leaf", "upgrade")
    assert "reruns" in printed.splitlines()[-1]
    new = yaml.safe_load(path.read_text())
    assert params.flatten(new).keys() == params.keys().keys()
    assert new["dropout"] == old["dropout"] == 0.25
    assert "# my own comment" in path.read_text()
    assert YAML().load(made.project / "dvc.yaml")["stages"] == installed_pipeline()["stages"]
    assert "params.yaml: valid" in made.run("leaf", "check")
    assert "reruns no stage" in made.run("leaf", "upgrade")
    assert stages_run(made.run("dvc", "repro", "validate")) == ["validate"]


@pytest.mark.slow
def test_leaf_is_importable_from_the_parent_folder_of_a_clone(tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "-q", "--shared", ROOT, tmp_path / "leaf"], check=True)
    (options,) = re.findall(r"^EDITABLE := (.*)", (ROOT / "Makefile").read_text(), re.M)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", *options.split()], cwd=tmp_path / "leaf", check=True)
    lookup = [python, "-c", "import leaf; print(leaf.__file__)"]
    done = subprocess.run(lookup, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "leaf/leaf/__init__.py")


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
        (venv / "installed").touch()  # newer than the requirements, so make considers it up to date
    made = subprocess.run(
        ["make", ".venv/installed"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    subprocess.run([venv / "bin" / "python", "-m", "pip", "--version"], check=True, capture_output=True)
    assert (venv / "installed").is_file()
