"""A rented machine: SkyPilot finds it, starts it again after a spot machine was taken away, and ends it when idle."""

import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from leaf.errors import LeafError
from leaf.runner import repository
from leaf.runner.config import SkyPilot
from leaf.runner.engines.processes import job_files
from leaf.runner.records import Record, State

FOLDER = Path(".dvc") / "tmp" / "leaf" / "cloud"


class CloudEngine:
    """Engine `skypilot`. One machine runs a job's experiments one after another, so its cost is that of one machine.

    A spot machine is a managed job (`sky jobs launch`), which SkyPilot starts again when the cloud takes it away; what
    is at the origin by then is not run again, and training resumes where `state_bucket` keeps its states.
    """

    def __init__(self, target: SkyPilot) -> None:
        self.target = target

    def job(self) -> dict[str, Any]:
        return {"stream": True}

    def submit(self, record: Record, job: dict[str, Any]) -> str:
        folder = FOLDER / record.id
        folder.mkdir(parents=True)
        for name, text in job_files(job).items():
            (folder / name).write_text(text, encoding="utf-8")
        description = folder.with_suffix(".yaml")
        task = task_yaml(self.target, record.id, len(record.experiments), folder.absolute())
        description.write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
        self._sky(*launch_command(self.target, _name(record), description))
        return f"SkyPilot's hands as {_name(record)}"

    def states(self, record: Record) -> list[State]:
        """An experiment whose results are at the origin is done; of the others SkyPilot alone can tell."""
        names = [one.name for one in record.experiments]
        there = repository.at_remote(self.target.git_remote, record.revision, names)
        look = "sky jobs queue" if self.target.spot else f"sky queue {_name(record)}"
        return [State("done") if name in there else State("unknown", f"`{look}` tells more") for name in names]

    def log(self, record: Record, index: int, offset: int) -> tuple[str, int]:  # noqa: ARG002
        """SkyPilot's log of the whole job, whichever experiment is asked for."""
        command = ["jobs", "logs", "--no-follow", "-n"] if self.target.spot else ["logs", "--no-follow"]
        text = self._sky(*command, _name(record), accepted=range(100, 104))  # what it says of a job's own state
        return text[offset:], len(text)

    def cancel(self, record: Record, indices: list[int]) -> list[int]:
        """End the machine; single experiments of a job cannot be ended."""
        if len(indices) != len(record.experiments):
            raise LeafError(f"{record.id}: a job in the cloud ends as a whole; name the job, not an experiment")
        self._sky(*(["jobs", "cancel", "-y", "-n"] if self.target.spot else ["down", "-y"]), _name(record))
        return indices

    @staticmethod
    def _sky(*arguments: str, accepted: Collection[int] = ()) -> str:
        if shutil.which("sky") is None:
            raise LeafError("sky: not found; install SkyPilot in an environment of its own, see docs/remote.md")
        answer = subprocess.run(["sky", *arguments], capture_output=True, text=True, check=False)
        if answer.returncode and answer.returncode not in accepted:
            complaint = [line for line in (answer.stderr or answer.stdout).splitlines() if line.strip()]
            raise LeafError(f"sky {arguments[0]}: {complaint[-1] if complaint else 'failed'}")
        return answer.stdout


def task_yaml(target: SkyPilot, identity: str, experiments: int, folder: Path) -> dict[str, Any]:
    """The description that `sky launch` takes. The job's values are in the mounted folder, none is in the script."""
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
    """The arguments of `sky`; a spot machine is a managed job, for only those are started again."""
    if target.spot:
        return ["jobs", "launch", "-y", "-d", "-n", name, str(description)]
    return ["launch", "-y", "-d", "-c", name, str(description)]


def _name(record: Record) -> str:
    return f"leaf-{record.id}"
