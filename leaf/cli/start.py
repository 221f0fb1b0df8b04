"""Examples: `leaf start /home/me/leaves`   `leaf start /home/me/leaves --yes -S image_size=192`"""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from leaf.cli.options import Settings
from leaf.dvc_experiments import require_commit, run_experiments
from leaf.errors import LeafError
from leaf.experiments import dvc_settings, parse_settings
from leaf.project.start import Option, Question, propose, start
from leaf.report.metrics_summary import summarize_metrics


def command(
    dataset: Annotated[Path, typer.Argument(help="a folder of images or an .npz file")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="accept all proposals")] = False,
    settings: Settings = None,
) -> None:
    """Propose classes, groups, image size and a recipe for your images, write params.yaml, and train."""

    def answer(question: Question) -> Option:
        typer.echo(f"\n{question.text}")
        for number, option in enumerate(question.options, 1):
            typer.echo(f"  {number}  {option.text}")
        if yes or len(question.options) == 1:
            return question.options[0]
        if not sys.stdin.isatty():
            raise LeafError(f"{question.key}: standard input is not a terminal. Pass --yes, or set keys with -S.")
        while not 1 <= (number := typer.prompt("Number", default=1, type=int)) <= len(question.options):
            typer.echo(f"Enter a number from 1 to {len(question.options)}.")
        return question.options[number - 1]

    require_commit()
    proposal = propose(dataset, parse_settings(settings or []))
    typer.echo("\n".join(proposal.lines))
    recipe, run = start(proposal, answer)
    words = [word for setting in dvc_settings(run) for word in ("-S", setting)]
    typer.echo(f"\nparams.yaml: updated. Running: {shlex.join(['leaf', 'run', '--force', recipe, *words])}")
    status = run_experiments([recipe], run, force=True)
    if status == 0:
        typer.echo(summarize_metrics())
    raise typer.Exit(status)
