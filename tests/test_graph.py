"""dvc.yaml tells DVC all that a stage depends on, and nothing else."""

import re
from pathlib import Path

import grimp
import pytest
import yaml

from leaf.params import keys

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@pytest.fixture(scope="module")
def imports():
    return grimp.build_graph("leaf", "stages", cache_dir=None)


def modules_of(stage, imports):
    """The files of every module of ours that the stage imports, packages' own __init__ among them."""
    modules = {f"stages.{stage}"} | imports.find_upstream_modules(f"stages.{stage}")
    modules |= {name.rpartition(".")[0] for name in modules for _ in name.split(".")[1:]}
    files = set()
    for module in modules | {name.rsplit(".", 2)[0] for name in modules}:
        path = ROOT / module.replace(".", "/")
        files.add(f"{path.relative_to(ROOT)}/__init__.py" if path.is_dir() else f"{path.relative_to(ROOT)}.py")
    return files


@pytest.mark.parametrize("stage", STAGES)
def test_deps_name_every_module_that_the_stage_imports(stage, imports):
    listed = {dep for dep in STAGES[stage]["deps"] if dep.endswith(".py")}
    assert sorted(listed) == sorted(modules_of(stage, imports))


@pytest.mark.parametrize("stage", STAGES)
def test_params_name_no_key_that_the_stage_does_not_read(stage, imports):
    # The other direction, a key read but not listed, is an AttributeError: leaf.params.read_params gives no other.
    listed = set(STAGES[stage].get("params", []))
    assert listed <= set(keys())
    if stage == "report":  # it shows every parameter that differs from its default
        assert listed == set(keys())
        return
    words = set()
    for file in modules_of(stage, imports) - {"leaf/params.py"}:
        words |= set(re.findall(r"\w+", (ROOT / file).read_text(encoding="utf-8")))
    assert {key for key in listed if key.rpartition(".")[2] not in words} == set()


@pytest.mark.parametrize("stage", STAGES)
def test_no_parameter_reaches_a_shell(stage):
    assert STAGES[stage]["cmd"] == f"python -m stages.{stage}"


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_says_what_it_does(stage):
    assert len(STAGES[stage]["desc"]) > 20
