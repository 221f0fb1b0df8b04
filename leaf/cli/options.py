"""Arguments and options that several commands share."""

from typing import Annotated

import typer

Force = Annotated[bool, typer.Option("--force", "-f", help="replace experiments with the same name")]
NoAccessLog = Annotated[bool, typer.Option("--quiet", "-q", help="turn off the access log")]
Port = Annotated[int, typer.Option(help="port to listen on; 0 selects a free port", min=0, max=65535)]
Row = Annotated[str | None, typer.Argument(help="row of experiments.yaml (default: params.yaml)")]
Runs = Annotated[list[str] | None, typer.Argument(help="runs, or all folds of one run (default: workspace)")]
Settings = Annotated[list[str] | None, typer.Option("-S", "--set-param", help="parameter to set, key=value")]
Target = Annotated[str | None, typer.Option("--on", help="target in runner.yaml (default: the one under `default`)")]
