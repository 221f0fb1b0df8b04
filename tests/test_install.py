"""What `make` and `pip install .` put into an environment."""

import email
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


@pytest.mark.slow
def test_the_wheel_asks_for_what_a_user_runs_and_no_tool_of_tests(tmp_path):
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith("METADATA"))
        wanted = email.message_from_bytes(archive.read(metadata)).get_all("Requires-Dist")
        assert any(name.startswith("leaf/report/templates/") for name in archive.namelist())
    names = {line.split("==")[0].split("[")[0].strip().lower() for line in wanted}
    assert {"dvc", "tensorflow", "keras", "pandas"} <= names
    tools = {"pytest", "playwright", "jax", "ruff", "mypy", "import-linter", "hypothesis", "schemathesis"}
    assert names & tools == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    ["a dangling python", pytest.param("a dangling folder", marks=pytest.mark.full), "no packages of this version"],
)
def test_a_virtual_environment_that_does_not_work_is_made_anew(tmp_path, fault):
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
