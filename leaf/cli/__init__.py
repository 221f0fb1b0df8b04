"""The command line `leaf`. The module of a command is imported only if the command runs."""

import ast
import importlib
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from leaf.errors import one_line_errors, quiet_tensorflow

HELP = """A reproducible image-classification pipeline with honest metrics.

Exit status: 0 success; 1 partial success; 2 user error, described in one line."""

# The commands, in the order of the help.
COMMANDS = """init start fit check results why run compare report folds leak labels audit review pin summary lr-range
verify upgrade predict serve export submit jobs logs fetch cancel doctor""".split()  # noqa: SIM905
FILES = {name: name.replace("-", "_") for name in COMMANDS}
FILES |= dict.fromkeys(("logs", "fetch", "cancel", "doctor"), "jobs")


class _Commands(TyperGroup):
    """A group of commands that imports only the module of the command that runs."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return COMMANDS

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:  # noqa: ARG002
        """Return a placeholder with a command's name and help text, without importing the command's module."""
        if cmd_name not in FILES:
            return None
        tree = ast.parse(Path(__file__).with_name(f"{FILES[cmd_name]}.py").read_text(encoding="utf-8"))
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        return TyperCommand(cmd_name, help=ast.get_docstring(functions.get("command") or functions[cmd_name]))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Import and return the command to run."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in FILES else listed, rest


def load(name: str) -> Any:
    """Import the module of a command and return its Click command.

    The module's docstring contains the examples. With `python -OO`, the help has none.
    """
    module: Any = importlib.import_module(f"leaf.cli.{FILES[name]}")
    epilog = module.EPILOGS[name] if FILES[name] == "jobs" else (module.__doc__ or "").strip().replace("\n", "   ")
    single = typer.Typer(add_completion=False)
    single.command(name, epilog=epilog)(getattr(module, "command", None) or getattr(module, name))
    return typer.main.get_command(single)


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
    """Define the options that precede the command."""


def main() -> None:
    """Run `leaf`. User errors are printed on one line, and the exit status is 2."""
    quiet_tensorflow()
    with one_line_errors():
        app()
