"""`leaf upgrade` migrates params.yaml, dvc.yaml and code.json and keeps the user's edits."""

from pathlib import Path

import pytest
import yaml

from leaf import params
from leaf.errors import LeafError
from leaf.project import upgrade
from leaf.project.init import write_files
from leaf.project.pipeline import CODE_FILE, changed_code, with_downstream
from leaf.project.upgrade import upgrade_project
from leaf.store import read_json, write_json


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_files(tmp_path, {})
    return tmp_path


def test_upgrade_of_a_current_project_changes_nothing(project: Path) -> None:
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    assert upgrade_project(project)[-1].endswith("reruns no stage")
    assert {path: path.read_bytes() for path in before} == before


def test_changed_code_lists_its_stage_and_downstream_stages(project: Path) -> None:
    write_json(read_json(project / CODE_FILE) | {"evaluate": "0"}, project / CODE_FILE)
    assert upgrade_project(project)[-1].endswith("reruns evaluate, and report if its inputs change")
    assert changed_code(project) == []


def test_missing_key_is_added_with_default_and_comment_in_order(project: Path) -> None:
    path = project / "params.yaml"
    lines = path.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("seed:", "  gamma:"))]
    kept[0] = "# my own comment"
    path.write_text("\n".join(kept).replace("dropout: 0.1 ", "dropout: 0.25") + "\n")
    changes = upgrade_project(project)
    assert "params.yaml: seed: added (42)" in changes
    assert "params.yaml: learning_rate.gamma: added (0.99994)" in changes
    text = path.read_text()
    assert text.startswith("# my own comment\n")
    assert "dropout: 0.25" in text
    keys = [line.partition(":")[0] for line in text.splitlines()]
    assert keys.index("ignore") + 1 == keys.index("seed") == keys.index("split_seed") - 1
    (seed,) = [line for line in text.splitlines() if line.startswith("seed:")]
    assert "#" in seed
    assert params.load(path).dropout == 0.25


def test_unknown_key_is_removed(project: Path) -> None:
    path = project / "params.yaml"
    path.write_text(path.read_text() + "gone: 7\n")
    assert "params.yaml: gone: removed" in upgrade_project(project)
    assert params.load(path) == params.Params()


@pytest.mark.parametrize(("old", "new"), [("rate_of_dropout", "dropout"), ("learning_rate.top", "learning_rate.max")])
def test_renamed_key_keeps_its_value(project: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    monkeypatch.setattr(upgrade, "RENAMED", {old: new})
    path = project / "params.yaml"
    before = path.read_text()
    key, name = new.rpartition(".")[2], old.rpartition(".")[2]
    path.write_text(before.replace(f"\n{key}: ", f"\n{name}: ").replace(f"\n  {key}: ", f"\n  {name}: "))
    assert f"params.yaml: {old}: renamed to {new}" in upgrade_project(project)
    assert params.load(path) == params.Params()


def test_user_stages_and_plots_in_dvc_yaml_are_kept(project: Path) -> None:
    path = project / "dvc.yaml"
    pipeline = yaml.safe_load(path.read_text())
    pipeline["stages"]["mine"] = {"cmd": "echo"}
    pipeline["plots"] = []
    pipeline["stages"]["train"]["params"].remove("dropout")
    path.write_text(yaml.safe_dump(pipeline, sort_keys=False))
    changes = upgrade_project(project)
    assert [line for line in changes if line.startswith("dvc.yaml")] == ["dvc.yaml: train: updated"]
    upgraded = yaml.safe_load(path.read_text())
    assert upgraded["stages"]["mine"] == {"cmd": "echo"}
    assert upgraded["plots"] == []
    assert "dropout" in upgraded["stages"]["train"]["params"]


@pytest.mark.parametrize("name", ["params.yaml", "dvc.yaml"])
@pytest.mark.parametrize("text", ["", "[]", "{", "a: 1\na: 2\n"])
def test_damaged_file_is_a_one_line_error_and_nothing_is_written(project: Path, name: str, text: str) -> None:
    (project / name).write_text(text)
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    with pytest.raises(LeafError, match=name):
        upgrade_project(project)
    assert {path: path.read_bytes() for path in before} == before


def test_folder_without_a_project_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(LeafError, match=r"code\.json.*leaf init"):
        upgrade_project(tmp_path)


def test_downstream_follows_outputs() -> None:
    stages = {
        "a": {"outs": ["x"]},
        "b": {"deps": ["x"], "outs": [{"y": {}}]},
        "c": {"deps": ["z"]},
        "d": {"deps": ["y"]},
    }
    assert with_downstream(stages, {"a"}) == ["a", "b", "d"]
