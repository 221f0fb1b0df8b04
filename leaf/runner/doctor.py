"""`leaf doctor`: check the requirements for running experiments on a target, and report what to fix."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from leaf.errors import LeafError
from leaf.runner import repository
from leaf.runner.agent.task import environment_key
from leaf.runner.config import GpuTarget, Local, Shell, SkyPilot, Slurm, Target
from leaf.runner.ssh import ProcessEngine

FREE = 10 * 2**30  # bytes needed for a clone, an environment with CUDA, and the data
PYTHONS = ((3, 11), (3, 13))  # oldest and newest Python with wheels for requirements-gpu.txt
DRIVER = 525  # oldest NVIDIA driver that supports CUDA 12
_SETUP_PYTHON = "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"  # `venv` needs ensurepip
_GPUS = ["nvidia-smi", "--query-gpu=index,name,driver_version,memory.total", "--format=csv,noheader"]
_DEVICES = "import keras; print(keras.backend.backend(), *keras.distribution.list_devices())"
_LATER = "not installed yet; the first job's `setup` installs it"


class Finding(NamedTuple):
    """The result of one check: whether it passed and, if not, how to fix the problem."""

    check: str
    good: bool
    note: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.good else 'FIX '}  {self.check.ljust(14)}  {self.note}"


def examine(name: str, target: Target) -> Iterator[Finding]:
    """Run the checks for a target in order, skipping those that depend on a failed check."""
    yield Finding("target", True, f"{name}, engine {target.engine}")
    yield _try("commit", lambda: repository.committed_revision()[:12])
    yield _try("author", lambda: "{name} <{email}>".format(**repository.author()))
    if target.needs_remote:
        yield _try("git remote", lambda: _git_remote(target))
        yield _try("DVC remote", lambda: _data_remote(target))
    if isinstance(target, SkyPilot):
        sky = shutil.which("sky")
        advice = "not found; install SkyPilot (see docs/remote.md), then run `sky check`"
        yield Finding("sky", sky is not None, sky or advice)
    elif isinstance(target, (Local, Shell)):
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
    request = {"folder": engine.folder, "path": path, "environment": target.environment}
    try:
        facts = engine.host.call("facts", **request, programs=programs, commands=commands)
    except LeafError as error:
        yield Finding("connection", False, str(error))
        return
    yield Finding("connection", True, f"{engine.host}, Python {facts['python']}, folder {facts['folder']}")
    enough = facts["free"] >= FREE
    required = "" if enough else f"; at least {FREE >> 30} GiB are required"
    yield Finding("disk", enough, f"{facts['free'] / 2**30:.0f} GiB free{required}")
    for program, place in facts["found"].items():
        if program == "dvc" and target.setup:
            yield Finding(program, True, place or _LATER)
        else:
            advice = "add `setup` or `path` to the target" if program == "dvc" else "install it"
            yield Finding(program, place is not None, place or f"not found; {advice}")
    yield from _examine_answers(target, facts["answers"])


def _examine_answers(target: Target, answers: dict[str, dict[str, Any]]) -> Iterator[Finding]:
    if "origin" in answers:
        yield _answered("target origin", answers["origin"], "reached", "give the target a key with push access")
    if "slurm" in answers:
        partitions = "; ".join(answers["slurm"]["output"].splitlines())
        yield _answered("partitions", answers["slurm"], partitions, "see `sinfo`")
    if "python" in answers:
        yield _python(answers["python"])
    keras = answers["keras"]
    if target.setup and keras["status"]:
        yield Finding("keras", True, _LATER)
    else:
        yield _answered("keras", keras, keras["output"].replace("\n", " "), "install requirements-gpu.txt")
    if "gpus" in answers and isinstance(target, GpuTarget):
        if keras["status"]:
            yield _driver(target.gpus, answers["gpus"])
        else:
            seen = re.search("gpu|cuda", keras["output"], re.IGNORECASE) is not None
            advice = "not visible to Keras; check the driver and requirements-gpu.txt"
            yield Finding("GPU", seen, "visible to Keras" if seen else advice)


def _python(answer: dict[str, Any]) -> Finding:
    """Check that the Python in `setup` can install the pinned packages."""
    oldest, newest = (".".join(map(str, version)) for version in PYTHONS)
    version = answer["output"] if answer["status"] == 0 else ""
    if version and PYTHONS[0] <= tuple(map(int, version.split("."))) <= PYTHONS[1]:
        return Finding("python", True, version)
    advice = f"`setup` requires Python {oldest}–{newest} with venv; see docs/remote.md for Ubuntu 22.04"
    return Finding("python", False, f"{version or answer['complaint']}; {advice}")


def _driver(gpus: list[int], answer: dict[str, Any]) -> Finding:
    """Check that the NVIDIA driver is new enough and detects the target's GPUs."""
    if answer["status"]:
        return Finding("driver", False, f"{answer['complaint']}; install NVIDIA driver {DRIVER} or newer")
    rows = [row.split(", ") for row in answer["output"].splitlines()]
    there = {int(row[0]): row[1:] for row in rows if len(row) == 4}
    if absent := [number for number in gpus if number not in there]:
        return Finding("driver", False, f"no GPU {absent[0]}; valid `gpus`: {sorted(there)}")
    found = "; ".join(f"{number}: {', '.join(there[number])}" for number in gpus)
    new = all(int(there[number][1].partition(".")[0]) >= DRIVER for number in gpus)
    return Finding("driver", new, found if new else f"{found}; CUDA 12 requires driver {DRIVER} or newer")


def _answered(check: str, answer: dict[str, Any], good: str, advice: str) -> Finding:
    if answer["status"] == 0:
        return Finding(check, True, good)
    return Finding(check, False, f"{answer['complaint'] or 'failed'}; {advice}")


def _try(check: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(check, True, look())
    except LeafError as error:
        return Finding(check, False, str(error))


def _git_remote(target: Target) -> str:
    address = repository.origin(target.git_remote)
    repository.git("ls-remote", "--", address, "HEAD")
    return address


def _data_remote(target: Target) -> str:
    name, address = repository.choose_data_remote(target.dvc_remote)
    repository.check_host_key(address)
    return f"{name}, {address}"
