"""Test the command line: help with valid examples, exit statuses, colors and completion."""

import re
import shlex
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from leaf.cli import FILES, app, load, main

GROUP = typer.main.get_command(app)
# Click derives the names of its environment variables from the program name.
LEAF = [sys.executable, "-c", "import sys; sys.argv[0] = 'leaf'; from leaf.cli import main; main()"]
COLOR = re.compile(r"\x1b\[[0-9;]*3[0-9]")


def leaf(*arguments, **variables):
    """Run `leaf` in a new process with only these environment variables."""
    return subprocess.run([*LEAF, *arguments], env=variables, capture_output=True, text=True)


@pytest.mark.parametrize("name", FILES)
def test_help_of_each_command_has_valid_examples(name):
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    command = load(name)
    assert command.help
    assert command.epilog.startswith("Example")
    assert "Example" in result.stdout
    for example in re.findall(r"`([^`]+)`", command.epilog):
        words = shlex.split(example.split("| ")[-1].split(" > ")[0])
        if words[0] == "leaf":
            subcommand, context, arguments = GROUP.resolve_command(typer.Context(GROUP, info_name="leaf"), words[1:])
            context.make_context(subcommand, list(arguments))
    assert f"`leaf {name}" in command.epilog


def test_help_lists_the_exit_statuses():
    text = " ".join(CliRunner().invoke(app, ["--help"]).stdout.split())
    assert re.search(r"Exit status: 0 .*; 1 .*; 2 ", text)


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["results"],
        ["compare", "HEAD", "workspace"],
        ["run", "dropout_02"],
        ["run"],
        ["summary", "no_such_row"],
        ["verify"],
        ["why", "58"],
        ["lr-range"],
        ["report", "HEAD"],
        ["predict", "leaf.jpg"],
        ["serve"],
        ["export", "--format", "onnx"],
        ["export", "--format", "caffe"],
        ["submit", "dropout_02"],
        ["cancel", "nothing"],
    ],
    ids=" ".join,
)
@pytest.mark.slow
def test_command_in_an_empty_folder_exits_with_one_line_and_status_2(arguments, tmp_path, monkeypatch, capsys):
    (tmp_path / "leaf.jpg").write_bytes(b"not an image")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["leaf", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        main()
    output = capsys.readouterr()
    assert exit_info.value.code == 2
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    assert output.out == ""


@pytest.mark.parametrize("arguments", [["predict"], ["why", "1", "--loud"], ["nonsense"], ["serve", "--port", "x"]])
def test_usage_error_has_status_2(arguments):
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_no_color_is_respected():
    plain, colored = (leaf("why", "--help", FORCE_COLOR="1", **extra) for extra in ({"NO_COLOR": "1"}, {}))
    assert COLOR.search(colored.stdout)
    assert not COLOR.search(plain.stdout)


def test_commands_run_without_docstrings():
    result = leaf("why", "58", PYTHONOPTIMIZE="2")
    assert "Traceback" not in result.stderr
    assert result.returncode == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_are_completed_in_the_shell(shell):
    variables = {"_LEAF_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "leaf pre", "COMP_WORDS": "leaf pre"}
    variables |= {"COMP_CWORD": "1", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    assert "predict" in leaf(**variables).stdout
