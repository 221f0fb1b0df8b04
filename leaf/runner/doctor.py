"""`leaf doctor`: check each link between this machine and a target, and say what to fix."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leaf.errors import LeafError
from leaf.runner import repository
from leaf.runner.agent.task import environment_key, host_key_refused
from leaf.runner.config import GpuTarget, Local, Shell, SkyPilot, Slurm, Target
from leaf.runner.engines import ProcessEngine

FREE = 10 * 2**30  # bytes needed for a clone, an environment with CUDA, and the data
PYTHONS = ((3, 11), (3, 13))  # oldest and newest Python with wheels for requirements-gpu.txt
DRIVER = 525  # oldest NVIDIA driver that supports CUDA 12
_SETUP_PYTHON = "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"  # without ensurepip: no `venv`
_GPUS = ["nvidia-smi", "--query-gpu=index,name,driver_version,memory.total", "--format=csv,noheader"]
_DEVICES = "import keras; print(keras.backend.backend(), *keras.distribution.list_devices())"


@dataclass(frozen=True)
class Finding:
    """The result for one link: whether it works and, if not, what to do."""

    link: str
    good: bool
    note: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.good else 'FIX '}  {self.link.ljust(14)}  {self.note}"


def examine(name: str, target: Target) -> Iterator[Finding]:
    """Check the links to the target in order; skip links that depend on a broken one."""
    yield Finding("target", True, f"{name}, engine {target.engine}")
    yield _try("commit", lambda: repository.committed_revision()[:12])
    yield _try("author", lambda: "{name} <{email}>".format(**repository.author()))
    if target.needs_remote:
        yield _try("git remote", lambda: _reachable(target))
        yield _try("DVC remote", lambda: _data_remote(target))
    if isinstance(target, SkyPilot):
        yield _program("sky", "install SkyPilot (see docs/remote.md), then run `sky check`")
        return
    if isinstance(target, (Local, Shell)):
        yield from _examine_host(target)


def _examine_host(target: Local | Shell) -> Iterator[Finding]:
    engine = ProcessEngine(target)
    programs = ["git", "dvc", *(["sbatch", "squeue", "scontrol", "scancel"] if isinstance(target, Slurm) else [])]
    path = list(target.path) if isinstance(target, Shell) else engine.job()["path"]
    commands = {"keras": ["python", "-c", _DEVICES]}
    if target.setup:
        path.insert(0, f"{engine.folder}/environments/{environment_key(target.setup, Path())}/bin")
        if found := re.search(r"\bpython3(\.\d+)?\b", target.setup):
            commands["python"] = [found[0], "-c", _SETUP_PYTHON]
    if isinstance(target, GpuTarget) and target.gpus:
        commands["gpus"] = _GPUS
    if target.needs_remote:
        address = getattr(target, "origin", None) or repository.origin(target.git_remote)
        commands["origin"] = ["git", "ls-remote", "--", address, "HEAD"]
    if isinstance(target, Slurm):
        commands["slurm"] = ["sinfo", "-h", "-o", "%P %a %D %t"]
    try:
        facts = engine.host.call(
            "facts",
            folder=engine.folder,
            path=path,
            environment=target.environment,
            programs=programs,
            commands=commands,
        )
    except LeafError as error:
        yield Finding("connection", False, str(error))
        return
    yield Finding("connection", True, f"{engine.host}, Python {facts['python']}, folder {facts['folder']}")
    room = facts["free"]
    yield Finding("disk", room >= FREE, f"{room / 2**30:.0f} GiB free" + ("" if room >= FREE else ", 10 are needed"))
    yield from _judge(target, facts)


def _judge(target: Target, facts: dict[str, Any]) -> Iterator[Finding]:
    """Turn the target's answers into findings."""
    for program, place in facts["found"].items():
        if program == "dvc" and target.setup:
            yield Finding("dvc", True, place or "not installed yet; the first job's `setup` installs it")
        else:
            advice = "not found; add `setup` or `path` to the target" if program == "dvc" else "not found; install it"
            yield Finding(program, place is not None, place or advice)
    answers = facts["answers"]
    if "origin" in answers:
        yield _answered("origin there", answers["origin"], "reached", "give the target a key with read and push access")
    if "slurm" in answers:
        yield _answered(
            "partitions", answers["slurm"], "; ".join(answers["slurm"]["output"].splitlines()), "see `sinfo`"
        )
    if "python" in answers:
        yield _python(answers["python"])
    keras = answers["keras"]
    if target.setup and keras["status"]:
        yield Finding("keras", True, "not installed yet; the first job's `setup` installs it")
    else:
        yield _answered("keras", keras, keras["output"].replace("\n", " "), "install requirements-gpu.txt")
    if isinstance(target, GpuTarget) and target.gpus:
        if keras["status"]:  # ask the driver instead
            yield _gpus(target.gpus, answers["gpus"])
            return
        seen = "gpu" in keras["output"].lower() or "cuda" in keras["output"].lower()
        advice = "not visible to Keras; check the driver and requirements-gpu.txt"
        yield Finding("GPU", seen, "visible to Keras" if seen else advice)


def _python(answer: dict[str, Any]) -> Finding:
    """Check that the Python in `setup` can install the pinned packages."""
    oldest, newest = (".".join(map(str, version)) for version in PYTHONS)
    advice = f"`setup` needs Python {oldest}–{newest} with venv; see docs/remote.md for Ubuntu 22.04"
    if answer["status"]:
        return Finding("python", False, f"{answer['complaint']}; {advice}")
    version = answer["output"]
    good = PYTHONS[0] <= tuple(map(int, version.split("."))) <= PYTHONS[1]
    return Finding("python", good, version if good else f"{version}; {advice}")


def _gpus(gpus: list[int], answer: dict[str, Any]) -> Finding:
    """Check that the driver sees the target's GPUs and is new enough."""
    if answer["status"]:
        return Finding("driver", False, f"{answer['complaint']}; install NVIDIA's driver {DRIVER} or newer")
    rows = [row.split(", ") for row in answer["output"].splitlines()]
    there = {int(row[0]): row[1:] for row in rows if len(row) == 4}
    if absent := [number for number in gpus if number not in there]:
        return Finding("driver", False, f"no GPU {absent[0]}; set `gpus` to some of {sorted(there)}")
    found = "; ".join(f"{number}: {', '.join(there[number])}" for number in gpus)
    new = all(int(there[number][1].partition(".")[0]) >= DRIVER for number in gpus)
    return Finding("driver", new, found if new else f"{found}; CUDA 12 needs driver {DRIVER} or newer")


def _answered(link: str, answer: dict[str, Any], good: str, advice: str) -> Finding:
    if answer["status"] == 0:
        return Finding(link, True, good)
    return Finding(link, False, f"{answer['complaint'] or 'failed'}; {advice}")


def _try(link: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(link, True, look())
    except LeafError as error:
        return Finding(link, False, str(error))


def _program(name: str, advice: str) -> Finding:
    place = shutil.which(name)
    return Finding(name, place is not None, place or f"not found; {advice}")


def _reachable(target: Target) -> str:
    address = repository.origin(target.git_remote)
    repository.git("ls-remote", "--", address, "HEAD")
    return address


def _data_remote(target: Target) -> str:
    name, address = repository.choose_data_remote(target.dvc_remote)
    host = repository.ssh_host(address)
    if host and (refused := host_key_refused(host, dict(os.environ))):
        raise LeafError(refused)
    return f"{name}, {address}"
