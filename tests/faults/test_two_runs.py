"""If two `dvc repro` processes run in the same folder, one finishes and the other waits or stops."""

import subprocess
import time

import pytest

pytestmark = pytest.mark.slow


def test_concurrent_repro_stops_or_waits(project):
    project.set(dropout=0.25)
    first = project.start("dvc", "repro", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    time.sleep(4)
    second = project.run("dvc", "repro", status=None)
    output = first.communicate()[0]
    assert first.returncode == 0, output
    assert second.returncode == 0 or "lock" in second.stderr.lower()
    assert "Traceback" not in second.stderr
    project.run("git", "checkout", "--quiet", "--", ".")
    project.run("dvc", "checkout", "--quiet")
    assert "Running stage" not in project.run("dvc", "repro", "train").stdout
