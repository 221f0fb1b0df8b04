"""Examples: `leaf compare HEAD workspace`   `leaf compare main dropout_02`
`leaf compare seed-1,seed-2 wider-1,wider-2`
"""

from typing import Annotated

import typer

from leaf.evaluate.model_comparison import compare_revisions, describe


def command(
    revisions: Annotated[
        list[str],
        typer.Argument(
            help="two or more revisions; all are compared with the first; join seeds of one recipe with commas"
        ),
    ],
    split: Annotated[str, typer.Option(help="split to compare on: test or validation")] = "test",
    same_labels: Annotated[
        bool, typer.Option("--same-labels", help="skip images whose labels differ between revisions")
    ] = False,
) -> None:
    """Compare runs (git revisions, DVC experiments or `workspace`) with the first one."""
    typer.echo(describe(compare_revisions(revisions, split, same_labels)))
