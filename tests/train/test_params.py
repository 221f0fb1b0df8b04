"""Check that dvc.yaml lists the parameters that training reads."""

import re
from pathlib import Path

import yaml

from leaf.params import Params

ROOT = Path(__file__).parents[2]


def test_dvc_yaml_lists_every_parameter_that_training_reads() -> None:
    code = "".join(path.read_text() for path in (ROOT / "leaf" / "train").glob("*.py"))
    read = set(re.findall(r"\bparams\.(\w+)", code)) & set(Params.model_fields)
    assert len(read) > 10
    assert read <= set(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["train"]["params"])
