"""Values reach params.yaml through DVC's override grammar (Hydra's) as the texts they are."""

from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from leaf.experiments import dvc_settings

TEXTS = ["a\\b", "a\\", "\\'", "it's", "''\\", 'a"b', "a\nb", "a,b", "{x: 1}", "", "$(x) `y`", "é✓", "[1]", "a=b", "~"]
TEXTS += ["null", "True", "12", "1e5", "inf", "${oc.env:HOME}", "\\${oc.env:HOME}", "x ${a} ${b}\\", "!!python/name:x"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_arrives_unchanged(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("weights: random\n")
    apply_overrides(path, dvc_settings({"weights": text}))
    assert yaml.safe_load(path.read_text()) == {"weights": text}


def test_numbers_booleans_and_lists_keep_their_types(tmp_path: Path) -> None:
    values = {"seed": 3, "dropout": 0.25, "near_turns": True, "references": [58, "a b.png"], "weights": None}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(dict.fromkeys(values, 0)))
    apply_overrides(path, dvc_settings(values))
    assert yaml.safe_load(path.read_text()) == values
