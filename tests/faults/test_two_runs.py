"""Two concurrent `dvc repro` in one folder: one runs, the other waits or refuses."""

import subprocess
import time

import pytest

pytestmark = pytest.mark.slow


def test_concurrent_repro_refuses_or_waits(project):
    project.set(dropout=0.25)
    first = subprocess.Popen(
        ["dvc", "repro"],
        cwd=project.folder,
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    time.sleep(4)
    second = project.run("dvc", "repro", status=None)
    output = first.communicate()[0]
    assert first.returncode == 0, output
    assert second.returncode == 0 or "lock" in second.stderr.lower()
    assert "Traceback" not in second.stderr
    project.run("git", "checkout", "--quiet", "--", ".")
    project.run("dvc", "checkout", "--quiet")
    assert "Running stage" not in project.run("dvc", "repro", "train").stdout
