"""The console command `leaf`: one file a command, imported only when that command runs."""

import ast
import importlib
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from leaf.errors import one_line_errors, quiet_tensorflow

HELP = """From a messy set of leaf photographs to an honest healthy/unhealthy classifier.

Exit status: 0 done; 1 done, but not for everything asked; 2 refused, with one line that says why."""

# Each command and its file here, in the order of the help.
FILES = {
    "init": "init",
    "fit": "fit",
    "check": "check",
    "results": "results",
    "why": "why",
    "run": "run",
    "compare": "compare",
    "report": "report",
    "folds": "folds",
    "leak": "leak",
    "labels": "labels",
    "audit": "audit",
    "review": "review",
    "pin": "pin",
    "summary": "summary",
    "lr-range": "lr_range",
    "verify": "verify",
    "upgrade": "upgrade",
    "predict": "predict",
    "serve": "serve",
    "export": "export",
    "submit": "runner",
    "jobs": "runner",
    "logs": "runner",
    "fetch": "runner",
    "cancel": "runner",
    "doctor": "runner",
}


class _Commands(TyperGroup):
    """Lists the commands by the docstrings in their files and imports the file of the one that runs."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(FILES)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:  # noqa: ARG002
        """A command for the list of commands: its name and help alone."""
        if cmd_name not in FILES:
            return None
        tree = ast.parse(Path(__file__).with_name(f"{FILES[cmd_name]}.py").read_text(encoding="utf-8"))
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        name = cmd_name if FILES[cmd_name] == "runner" else "command"
        return TyperCommand(cmd_name, help=ast.get_docstring(functions[name]))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that runs, whole."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in FILES else listed, rest


def load(name: str) -> Any:
    """The click command `name`, its file imported."""
    command = typer.main.get_command(importlib.import_module(f"leaf.cli.{FILES[name]}").app)
    return getattr(command, "commands", {}).get(name, command)


app = typer.Typer(cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        from leaf.project.version import describe_version

        typer.echo(describe_version())
        raise typer.Exit


@app.callback(help=HELP)
def options(
    version: Annotated[
        bool, typer.Option("--version", help="print version and commit", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Handle the options before a command."""


def main() -> None:
    """Run `leaf`; a person's mistake ends in one line and exit status 2."""
    quiet_tensorflow()
    with one_line_errors():
        app()
