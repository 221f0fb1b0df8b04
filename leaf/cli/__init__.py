"""The console command `leaf`. A command's module is imported only when the command runs."""

import ast
import importlib
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from leaf.errors import one_line_errors, quiet_tensorflow

HELP = """A reproducible image-classification pipeline with honest metrics.

Exit status: 0 success; 1 partial success; 2 user error, explained in one line."""

# The commands, in the order that the help lists them.
COMMANDS = """init start fit check results why run compare report folds leak labels audit review pin summary lr-range
verify upgrade predict serve export submit jobs logs fetch cancel doctor""".split()  # noqa: SIM905
FILES = {name: name.replace("-", "_") for name in COMMANDS}
FILES |= dict.fromkeys(("logs", "fetch", "cancel", "doctor"), "jobs")


class _Commands(TyperGroup):
    """List commands from the docstrings of their modules; import only the command that runs."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return COMMANDS

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:  # noqa: ARG002
        """Return a command with only its name and help, for the list of commands."""
        if cmd_name not in FILES:
            return None
        tree = ast.parse(Path(__file__).with_name(f"{FILES[cmd_name]}.py").read_text(encoding="utf-8"))
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        name = cmd_name if FILES[cmd_name] == "jobs" else "command"
        return TyperCommand(cmd_name, help=ast.get_docstring(functions[name]))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command to run."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in FILES else listed, rest


def load(name: str) -> Any:
    """Import and return the click command `name`."""
    command = typer.main.get_command(importlib.import_module(f"leaf.cli.{FILES[name]}").app)
    return getattr(command, "commands", {}).get(name, command)


app = typer.Typer(cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        from leaf.project.pipeline import describe_version

        typer.echo(describe_version())
        raise typer.Exit


@app.callback(help=HELP)
def options(
    version: Annotated[
        bool, typer.Option("--version", help="print version and commit", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Handle the options that precede a command."""


def main() -> None:
    """Run `leaf`; user errors print a single line and exit with status 2."""
    quiet_tensorflow()
    with one_line_errors():
        app()
