"""Test `leaf summary` for the model in params.yaml, for an experiment, and with individual settings."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from leaf.cli import app
from leaf.errors import LeafError
from leaf.experiments import read_experiments
from leaf.models import build as build_module
from leaf.models.backbones import is_detector
from leaf.models.summary import summarize_model

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("backbone: cnn_small\nimage_size: 32\n")
    (tmp_path / "experiments.yaml").write_text("frozen: {why: only the head is trained, set: {freeze_depth: all}}\n")
    return tmp_path


def test_rows_add_up_to_the_total(small):
    table = summarize_model(small)
    assert [row.name for row in table.rows] == ["cnn_small", "batch_normalization", "dropout", "dense"]
    assert sum(row.parameters for row in table.rows) == table.total == table.trainable + table.non_trainable
    assert table.rows[0].shape == (128,)


def test_moving_statistics_are_non_trainable(small):
    assert summarize_model(small).non_trainable == 2 * 128


def test_command_applies_experiment_and_settings(project):
    given = CliRunner().invoke(app, ["summary", "frozen", "-S", "dropout=0.2", "--json"])
    table = json.loads(given.stdout)
    assert given.exit_code == 0
    assert table["trainable"] == 2 * 128 + 258


def test_command_prints_a_table(project):
    text = CliRunner().invoke(app, ["summary"]).stdout
    assert "cnn_small" in text
    assert "non-trainable" in text


def test_invalid_setting_is_rejected(project):
    with pytest.raises(LeafError, match="dropout: 2"):
        CliRunner().invoke(app, ["summary", "-S", "dropout=2"], catch_exceptions=False)


@pytest.mark.slow
def test_command_summarizes_every_row_of_experiments_yaml(monkeypatch):
    """To save time, each architecture is built only once."""
    monkeypatch.chdir(ROOT)
    build, built = build_module.build_model, {}

    def build_once(**arguments):
        key = json.dumps({key: value for key, value in arguments.items() if key != "dropout"})
        return built.setdefault(key, build(**arguments)) if key not in built else built[key]

    monkeypatch.setattr(build_module, "build_model", build_once)
    for name, row in read_experiments().items():
        given = CliRunner().invoke(app, ["summary", name, "--json"], catch_exceptions=False)
        layers = [layer["name"] for layer in json.loads(given.stdout)["rows"]]
        expected_first = row.set.get("dropout_at", "head") == "input"
        assert (layers[0] == "dropout") == expected_first, name
        assert layers[-1] == ("logits" if is_detector(row.set.get("backbone", "convnext_atto")) else "dense"), name


def test_list_contains_every_backbone():
    text = CliRunner().invoke(app, ["summary", "--list"]).stdout
    assert "convnext_xlarge" in text
    assert "gan" in text
