"""Test the test setup: the list of slow tests, shared fixtures, and commands that run in a fork."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
LONG = """
import time

import pytest


def work():
    begun = time.process_time()
    while time.process_time() - begun < 1:
        pass


def test_long():
    work()


@pytest.mark.slow
def test_long_and_marked():
    work()
"""
SHARING = """
import os
import time
from pathlib import Path

import pytest


@pytest.mark.parametrize("number", range(4))
def test_shared(once, number):
    def make(folder):
        with Path("made").open("a") as log:
            log.write("x")
        time.sleep(0.1)
        (folder / "whole").touch()

    assert (once("thing", make) / "whole").exists()
    with Path("workers").open("a") as log:
        print(Path(__file__).name, os.environ.get("PYTEST_XDIST_WORKER"), file=log)
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_unmarked_slow_test_is_listed_and_shared_folder_is_created_once(tmp_path, workers):
    tests = tmp_path / "tests"
    tests.mkdir()
    changed = CONFTEST.read_text(encoding="utf-8").replace("SLOW = 10", "SLOW = 0.8")
    (tests / "conftest.py").write_text(changed, encoding="utf-8")
    shutil.copy(CONFTEST.with_name("warm.py"), tests)
    for name, text in {"long": LONG, "a": SHARING, "b": SHARING, "c": SHARING}.items():
        (tests / f"test_{name}.py").write_text(text, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["slow: x"]\n')
    command = [sys.executable, "-m", "pytest", "-p", "xdist", "-n", str(workers), "--dist", "loadscope"]
    plain = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    plain = {name: value for name, value in plain.items() if not name.startswith("PYTEST_XDIST")}
    done = subprocess.run(
        [*command, "--slowest", "slowest.md"], cwd=tmp_path, env=plain, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert "14 passed" in done.stdout
    listed = [line for line in done.stdout.splitlines() if line.startswith("slow, not marked")]
    assert [line.split()[3] for line in listed] == ["tests/test_long.py::test_long"]
    assert "| `tests/test_long.py::test_long_and_marked` |" in (tmp_path / "slowest.md").read_text()
    assert (tmp_path / "made").read_text() == "x"
    assert len(set((tmp_path / "workers").read_text().splitlines())) == 3  # no file was run by two workers


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["python -m stages.split", "python -c print(7)", "dvc doctor --no-such", "dvc exp show", "leaf why 1"]
)
def test_command_in_a_fork_has_the_output_and_status_of_a_new_process(programs, tmp_path, command):
    plain = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(CONFTEST.parents[1])}
    results = []
    for variables in (plain, plain | {"COLD": "1"}):
        done = subprocess.run(command.split(), cwd=tmp_path, env=variables, capture_output=True, text=True)
        results.append((done.returncode, done.stdout, done.stderr.splitlines()[-1:]))
    assert results[0] == results[1]


@pytest.mark.slow
def test_signal_reaches_the_fork(programs, tmp_path):
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/__init__.py").touch()
    (tmp_path / "stages/sleep.py").write_text("import time\nprint('ready', flush=True)\ntime.sleep(99)\n")
    plain = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    command = [programs / "python", "-m", "stages.sleep"]
    with subprocess.Popen(command, cwd=tmp_path, env=plain, stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout.readline() == "ready\n"
        asking.terminate()
        assert asking.wait(10) == -signal.SIGTERM
