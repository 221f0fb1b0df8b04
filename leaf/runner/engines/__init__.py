"""The engines: each takes a job to its target, tells how it goes there, and ends it."""

from pathlib import Path

import yaml

from leaf.runner.config import Local, SkyPilot, Slurm, Ssh, Target
from leaf.runner.engines.cloud import CloudEngine, task_yaml
from leaf.runner.engines.processes import ProcessEngine, SlurmEngine, sbatch_options
from leaf.runner.records import Engine, State

__all__ = ["Engine", "State", "engine_for", "rehearsal"]


def engine_for(target: Target) -> Engine:
    """The engine that a target names."""
    if isinstance(target, Slurm):
        return SlurmEngine(target)
    if isinstance(target, (Local, Ssh)):
        return ProcessEngine(target)
    if isinstance(target, SkyPilot):
        return CloudEngine(target)
    raise TypeError(f"no engine for {type(target)}")


def rehearsal(target: Target, experiments: int) -> str:
    """What an engine would be told, for `--dry-run`: SkyPilot's task or Slurm's options; nothing for a process."""
    if isinstance(target, SkyPilot):
        return yaml.safe_dump(task_yaml(target, "JOB", experiments, Path("JOB")), sort_keys=False)
    if isinstance(target, Slurm):
        return "sbatch " + " ".join(sbatch_options(target, "JOB", experiments)) + "\n"
    return ""
