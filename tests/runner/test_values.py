"""Values reach params.yaml unchanged through DVC's override grammar (Hydra's)."""

from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from leaf.errors import LeafError
from leaf.experiments import dvc_settings, parse_settings
from leaf.store import read_yaml

TEXTS = ["a\\b", "a\\", "\\'", "it's", "''\\", 'a"b', "a\nb", "a,b", "{x: 1}", "", "$(x) `y`", "é✓", "[1]", "a=b", "~"]
TEXTS += ["null", "True", "12", "1e5", "inf", "${oc.env:HOME}", "\\${oc.env:HOME}", "x ${a} ${b}\\", "!!python/name:x"]


@pytest.mark.parametrize("text", TEXTS)
def test_text_round_trip(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("weights: random\n")
    apply_overrides(path, dvc_settings({"weights": text}))
    assert yaml.safe_load(path.read_text()) == {"weights": text}


def test_types_round_trip(tmp_path: Path) -> None:
    values = {"seed": 3, "dropout": 0.25, "near_turns": True, "references": [58, "a b.png"], "weights": None}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(dict.fromkeys(values, 0)))
    apply_overrides(path, dvc_settings(values))
    assert yaml.safe_load(path.read_text()) == values


MAPPING = {"healthy": ["*healthy", "it's"], "un healthy-2": ["*"]}


@pytest.mark.parametrize("before", ["[a, b]", "{a: [x], b: ['*']}", "auto"])
def test_mapping_replaces_any_value(tmp_path: Path, before: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"classes: {before}\n")
    apply_overrides(path, dvc_settings({"classes": MAPPING}))
    assert read_yaml(path) == {"classes": MAPPING}


def test_key_that_dvc_misreads_is_rejected() -> None:
    with pytest.raises(LeafError, match="DVC does not accept the key"):
        dvc_settings({"classes": {"007": ["x"], "a": ["*"]}})


def test_mapping_in_dvc_syntax_is_parsed() -> None:
    assert parse_settings(['classes={healthy:["*healthy","a:b"],unhealthy:["*"]}']) == {
        "classes": {"healthy": ["*healthy", "a:b"], "unhealthy": ["*"]}
    }


NAMES = [
    "yes",
    "no",
    "on",
    "~",
    "null",
    "007",
    "2026-01-01",
    "1e5",
    "12:30",
    "a b",
    "x/y",
    "it's",
    'a"b',
    "<b>",
    "-dash",
]


def test_names_survive_a_change_to_another_key(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("classes: [a, b]\ndropout: 0.1\n")
    apply_overrides(path, dvc_settings({"classes": [*NAMES, "🍃"]}))
    apply_overrides(path, ["dropout=0.2"])
    assert read_yaml(path) == {"classes": [*NAMES, "🍃"], "dropout": 0.2}
