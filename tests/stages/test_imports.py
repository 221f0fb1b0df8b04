"""Stages without a model start fast: they import neither Keras nor scikit-learn."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("stage", ["ingest", "split"])
def test_stage_imports_neither_keras_nor_scikit_learn(stage, pytestconfig):
    code = f"import sys, stages.{stage}; print({{'keras', 'tensorflow', 'sklearn', 'scipy'}} & sys.modules.keys())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
