"""`leaf summary` prints the table of the network that params.yaml, an experiment and settings name."""

import json

import pytest
from typer.testing import CliRunner

from leaf.cli import app
from leaf.cli import summary as command
from leaf.errors import LeafError
from leaf.models.summary import summarize_model


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("backbone: cnn_small\nimage_size: 32\n")
    (tmp_path / "experiments.yaml").write_text("frozen: {why: nothing but the head, set: {freeze_depth: all}}\n")
    return tmp_path


def test_rows_add_up_to_the_total(small):
    table = summarize_model(small)
    assert [row.name for row in table.rows] == ["cnn_small", "batch_normalization", "dropout", "dense"]
    assert sum(row.parameters for row in table.rows) == table.total == table.trainable + table.non_trainable
    assert table.rows[0].shape == (128,)


def test_moving_statistics_do_not_learn(small):
    assert summarize_model(small).non_trainable == 2 * 128


def test_the_command_prints_json_of_an_experiment_and_settings(project):
    given = CliRunner().invoke(app, ["summary", "frozen", "-S", "dropout=0.2", "--json"])
    table = json.loads(given.stdout)
    assert given.exit_code == 0
    assert table["trainable"] == 2 * 128 + 258


def test_the_command_prints_a_table(project):
    text = command.network(None, [], as_json=False)
    assert "cnn_small" in text
    assert "non-trainable" in text


def test_a_wrong_setting_is_one_line(project):
    with pytest.raises(LeafError, match="dropout: 2; valid: a fraction"):
        command.network(None, ["dropout=2"], as_json=False)


def test_the_list_holds_every_backbone():
    text = CliRunner().invoke(app, ["summary", "--list"]).stdout
    assert "convnext_xlarge" in text
    assert "gan" in text
