"""dvc.yaml lists exactly the dependencies of each stage."""

import re
from pathlib import Path

import grimp
import pytest
import yaml

from leaf.params import keys

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
# Edits to these modules change no result: they contain messages, or keys that DVC tracks as parameters.
WORDS = {"leaf/errors.py", "leaf/params.py", "leaf/experiments.py", "leaf/models/backbones.py"}


@pytest.fixture(scope="module")
def imports():
    return grimp.build_graph("leaf", "stages", exclude_type_checking_imports=True, cache_dir=None)


def modules_of(stage, imports):
    """Return the files of all project modules that the stage imports."""
    files = set()
    for module in imports.find_upstream_modules(f"stages.{stage}") | {f"stages.{stage}"}:
        path = ROOT / module.replace(".", "/")
        files.add(str((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).relative_to(ROOT)))
    return files - WORDS - {"leaf/__init__.py"}


def code_of(stage):
    """Return the code files and folders that dvc.yaml lists for the stage."""
    return [dep for dep in STAGES[stage]["deps"] if dep.startswith(("leaf", "stages"))]


@pytest.mark.parametrize("stage", STAGES)
def test_imported_modules_are_listed_as_dependencies(stage, imports):
    listed = code_of(stage)
    assert {file for file in modules_of(stage, imports) if not any(map(Path(file).is_relative_to, listed))} == set()


@pytest.mark.parametrize("stage", STAGES)
def test_listed_code_is_imported(stage, imports):
    files = modules_of(stage, imports)
    assert [dep for dep in code_of(stage) if not any(Path(file).is_relative_to(dep) for file in files)] == []


@pytest.mark.parametrize("stage", STAGES)
def test_listed_params_are_read(stage, imports):
    # The reverse needs no test: read_params returns only listed keys, so reading any other raises an AttributeError.
    if stage in ("validate", "report"):  # these stages read every parameter
        assert STAGES[stage]["params"] == [{"params.yaml": None}]
        return
    listed = set(STAGES[stage].get("params", []))
    assert listed <= set(keys()) | {key.partition(".")[0] for key in keys()}
    words = set()
    for file in modules_of(stage, imports):
        words |= set(re.findall(r"\w+", (ROOT / file).read_text(encoding="utf-8")))
    assert {key for key in listed if key.rpartition(".")[2] not in words} == set()


@pytest.mark.parametrize("stage", STAGES)
def test_commands_contain_no_parameter(stage):
    assert STAGES[stage]["cmd"] == f"python -m stages.{stage}"


def test_every_stage_runs_after_validate():
    for stage in set(STAGES) - {"validate"}:
        reached, queue = set(), [stage]
        while queue:
            deps = set(STAGES[queue.pop()]["deps"])
            found = {name for name, each in STAGES.items() if deps & set(each["outs"])} - reached
            reached |= found
            queue += found
        assert "validate" in reached, stage
