"""Rows of experiments.yaml do not depend on earlier runs."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from leaf.experiments import read_experiments, row_settings, with_settings
from leaf.params import Params
from leaf.store import read_yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a git repository with the committed params.yaml and experiments.yaml."""
    for name in ("params.yaml", "experiments.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    identity = ["-c", "user.name=A Person", "-c", "user.email=person@example.org"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "project"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def apply(name: str, **changes: object) -> Params:
    """Write params.yaml in the same way as `leaf run NAME`."""
    values = with_settings(read_yaml("params.yaml"), {**row_settings(name)[0], **changes})
    Path("params.yaml").write_text(yaml.safe_dump(values.model_dump(mode="json")))
    return values


@pytest.mark.parametrize("name", read_experiments(ROOT / "experiments.yaml"))
def test_row_does_not_depend_on_an_earlier_probe(project: Path, name: str) -> None:
    fresh = apply(name)
    subprocess.run(["git", "checkout", "-q", "params.yaml"], check=True)
    apply("probe")
    assert apply(name) == fresh


def test_row_keeps_data_keys_and_reports_reset_keys(project: Path) -> None:
    apply("probe", dataset="mine", classes="auto", image_size=192, epochs=5)
    settings, lines = row_settings("default")
    values = with_settings(read_yaml("params.yaml"), settings)
    assert (values.dataset, values.classes, values.image_size) == ("mine", "auto", 192)
    assert (values.backbone, values.balance, values.epochs) == ("convnext_atto", "smote", 32)
    assert any("epochs" in line and "32" in line and "-S epochs=5" in line for line in lines)


def test_row_keeps_the_columns_and_encoding_of_the_label_table(project: Path) -> None:
    apply("default", **{"columns.label": "disease", "encoding": "cp1252"})
    assert (apply("transfer").columns.label, apply("transfer").encoding) == ("disease", "cp1252")


def test_custom_image_size_takes_precedence_over_the_row(project: Path) -> None:
    assert apply("probe").image_size == 160
    assert apply("default").image_size == 96
    apply("default", image_size=224)
    assert apply("probe").image_size == 224
    assert apply("default").image_size == 224


def test_row_keeps_committed_settings(project: Path) -> None:
    values = read_yaml("params.yaml") | {"dropout": 0.3}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    assert apply("default").dropout == 0.1
    Path("params.yaml").write_text(yaml.safe_dump(values))
    identity = ["-c", "user.name=A Person", "-c", "user.email=person@example.org"]
    subprocess.run(["git", *identity, "commit", "-qam", "mine"], check=True)
    assert apply("default").dropout == 0.3


def test_row_keeps_a_weights_file_for_its_backbone(project: Path) -> None:
    apply("probe", weights="mobilenet.h5", weights_sha256="0" * 64)
    assert apply("transfer").weights == "mobilenet.h5"
    assert apply("default").weights == "random"
