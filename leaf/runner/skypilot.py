"""The engine `skypilot`: rent a machine, restart it after a spot interruption, and terminate it when idle."""

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from leaf.errors import LeafError, output_of
from leaf.runner import repository
from leaf.runner.config import SkyPilot
from leaf.runner.plan import Record
from leaf.runner.ssh import Status, job_files

CLOUD_FOLDER = Path(".dvc") / "tmp" / "leaf" / "cloud"


class CloudEngine:
    """The engine `skypilot`: one machine runs the experiments of a job in sequence.

    A spot machine is a managed job (`sky jobs launch`), which SkyPilot restarts after an interruption. Experiments
    whose results are on the git remote are skipped, and training resumes if `state_bucket` is set.
    """

    def __init__(self, target: SkyPilot) -> None:
        self.target = target

    def job(self) -> dict[str, Any]:
        return {"stream": True}

    def rehearsal(self, experiments: int) -> str:
        return yaml.safe_dump(task_yaml(self.target, "JOB", experiments, Path("JOB")), sort_keys=False)

    def submit(self, record: Record, job: dict[str, Any]) -> str:
        folder = CLOUD_FOLDER / record.id
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        for name, text in job_files(job).items():
            (folder / name).write_text(text, encoding="utf-8")
        description = folder.with_suffix(".yaml")
        task = task_yaml(self.target, record.id, len(record.experiments), folder.absolute())
        description.write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
        self._sky(*launch_command(self.target, task["name"], description))
        return f"SkyPilot as {task['name']}"

    def status(self, record: Record) -> list[Status]:
        """Return `done` for experiments on the git remote, and `unknown` for others, whose state only SkyPilot has."""
        there = repository.at_remote(self.target.git_remote, record.revision)
        look = "sky jobs queue" if self.target.spot else f"sky queue leaf-{record.id}"
        return [Status("done") if name in there else Status("unknown", f"see `{look}`") for name in record.names]

    def log(self, record: Record, name: str, offset: int) -> tuple[str, int]:  # noqa: ARG002
        """Return SkyPilot's log, which covers all experiments of the job."""
        command = ["jobs", "logs", "--no-follow", "-n"] if self.target.spot else ["logs", "--no-follow"]
        # exit statuses 100 to 103 report the state of the job, not an error of `sky`
        text = self._sky(*command, f"leaf-{record.id}", accepted=(0, *range(100, 104)))
        return text[offset:], len(text)

    def cancel(self, record: Record, names: list[str]) -> list[str]:
        """Stop the machine. Individual experiments cannot be canceled."""
        if len(names) != len(record.experiments):
            raise LeafError(f"{record.id}: SkyPilot cancels whole jobs only. Pass this job ID, not an experiment.")
        self._sky(*(["jobs", "cancel", "-y", "-n"] if self.target.spot else ["down", "-y"]), f"leaf-{record.id}")
        return names

    @staticmethod
    def _sky(*arguments: str, accepted: Collection[int] = (0,)) -> str:
        if shutil.which("sky") is None:
            raise LeafError("sky: not found. Install SkyPilot in a separate environment; see docs/remote.md.")
        return output_of("sky", *arguments, accepted=accepted)


def task_yaml(target: SkyPilot, identity: str, experiments: int, folder: Path) -> dict[str, Any]:
    """Return the task for `sky launch`. The job's values are in the mounted `folder`, not in the script."""
    resources: dict[str, Any] = {
        "accelerators": target.accelerators,
        "use_spot": target.spot,
        "disk_size": target.disk,
        "autostop": {"idle_minutes": target.idle_minutes, "down": True},
    }
    if target.cloud:
        resources["infra"] = "/".join(part for part in (target.cloud, target.region) if part)
    if target.hourly_cost is not None:
        resources["max_hourly_cost"] = target.hourly_cost
    home = f"~/leaf/jobs/{identity}"
    mounts: dict[str, Any] = {home: str(folder)}
    if target.state_bucket:
        mounts["~/leaf/state"] = {"source": target.state_bucket, "mode": "MOUNT"}
    numbers = " ".join(map(str, range(experiments)))
    run = ["status=0", f"for index in {numbers}; do", f"  python3 {home}/task.py {home} $index || status=1", "done"]
    script = "\n".join([*run, "exit $status", ""])
    return {"name": f"leaf-{identity}", "resources": resources, "file_mounts": mounts, "run": script}


def launch_command(target: SkyPilot, name: str, description: Path) -> list[str]:
    """Return the arguments for `sky`. A spot machine uses a managed job, because SkyPilot restarts only those."""
    if target.spot:
        return ["jobs", "launch", "-y", "-d", "-n", name, str(description)]
    return ["launch", "-y", "-d", "-c", name, str(description)]
