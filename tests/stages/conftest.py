"""Fixtures: working directories for the stages."""

import shutil
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """Enter an empty folder with the project's dvc.yaml and params.yaml, and return it."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def set_params(workspace):
    """Return a function that writes params.yaml with changed keys."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    return lambda **changes: (workspace / "params.yaml").write_text(yaml.safe_dump(params | changes))
