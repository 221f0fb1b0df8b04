"""The schema of runner.yaml: the targets that a job can be sent to. It keeps no secret."""

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from leaf.errors import LeafError
from leaf.store import read_yaml

RUNNER_FILE = "runner.yaml"

# Names of variables that hold secrets: parts anywhere, and words between underscores.
_SECRET = re.compile(
    r"token|secret|passw|pgpass|credential|private|api_?key|access_?key|(^|_)(pat|pass|pwd|pw|keys?|auth|dsn)\d*(_|$)",
    re.IGNORECASE,
)
# What the secrets of well-known services look like, and an address with a password or a token in it.
_SECRET_VALUE = re.compile(
    r"gh[opsu]_[A-Za-z0-9]{20}|github_pat_|glpat-|hf_[A-Za-z0-9]{20}|\bsk-[A-Za-z0-9_-]{20}|xox[abprs]-|\bA[KS]IA[A-Z0-9]{16}"
    r"|AIza[A-Za-z0-9_-]{30}|\beyJ[A-Za-z0-9_-]{10,}\.|-----BEGIN [A-Z ]*PRIVATE|[a-z+]+://[^/@\s]*:[^/@\s]+@|https?://[^/@\s]+@"
)
_VALID = {
    "engine": "local, ssh, slurm, skypilot",
    "host": "a name of your ssh configuration, or user@name",
    "ssh_config": "a file, as for `ssh -F`",
    "folder": "a folder on the target, absolute or from ~",
    "python": "a program, Python from 3.8",
    "git_remote": "a remote that `git remote` prints",
    "origin": "the address of the same repository as the target sees it",
    "dvc_remote": "a remote that `dvc remote list` prints",
    "setup": "a shell script that fills $LEAF_ENVIRONMENT",
    "path": "a list of folders, put in front of PATH",
    "environment": "a mapping of names to texts, no secrets",
    "gpus": "a list of GPU numbers; [] for one job at a time without a GPU",
    "nodes": "a whole number from 1",
    "gpus_per_job": "a whole number from 0",
    "partition": "a name that `sinfo` prints",
    "account": "a name of letters, digits, . _ -",
    "time_limit": "minutes, a whole number from 1",
    "signal_before": "seconds before the time limit, 0 to 3600",
    "parallel": "a whole number from 1, or null for no limit",
    "cpus": "a whole number from 1",
    "memory": "gigabytes, a whole number from 1",
    "requeues": "a whole number from 0 to 1000",
    "cloud": "a cloud that `sky check` prints, or null for the cheapest",
    "region": "a region of that cloud, or null",
    "accelerators": "SkyPilot's notation, as L4:1",
    "spot": "true, false",
    "idle_minutes": "minutes, a whole number from 1",
    "hourly_cost": "dollars an hour, a number above 0, or null",
    "disk": "gigabytes, a whole number from 50",
    "state_bucket": "a bucket's address, as s3://name, or null",
}

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=100)]
Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f]*$")]


class Target(BaseModel):
    """What every engine has."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    engine: str
    git_remote: Name = "origin"
    dvc_remote: Name | None = None
    setup: str | None = None
    path: list[Text] = []
    environment: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = {}
    hourly_cost: Annotated[float, Field(gt=0)] | None = None
    needs_remote: ClassVar[bool] = True

    @field_validator("*")
    @classmethod
    def _no_secret(cls, value: Any) -> Any:
        named = value.items() if isinstance(value, dict) else [("", text) for text in _texts(value)]
        for name, text in named:
            if _SECRET.search(name) or holds_secret(text):
                what = name or "its value"
                raise ValueError(f"{what} looks like a secret, and runner.yaml keeps none; set it on the target itself")
        return value


class Shell(Target):
    """An engine that is spoken to through a shell, here or over ssh."""

    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._@:%-]*$", max_length=255)] | None = None
    ssh_config: Text | None = None
    folder: Annotated[str, Field(pattern=r"^(/|~/)[^\x00-\x1f]*$")] = "~/leaf"
    origin: Text | None = None
    python: Text = "python3"


class GpuTarget(Target):
    """An engine that hands out a machine's GPUs itself, each to one experiment at a time."""

    gpus: list[Annotated[int, Field(ge=0, le=1023)]] = []
    gpus_per_job: Annotated[int, Field(ge=1)] = 1

    @field_validator("gpus_per_job")
    @classmethod
    def _no_more_than_there_are(cls, value: int, info: ValidationInfo) -> int:
        if value > (most := max(1, len(info.data.get("gpus", [])))):
            raise ValueError(f"{value}; valid: 1 to {most}, as many as `gpus` names")
        return value


class Local(GpuTarget):
    """This machine, from a clean clone beside the working tree; shares its DVC cache, so it needs no remote."""

    engine: Literal["local"]
    needs_remote: ClassVar[bool] = False


class Ssh(GpuTarget, Shell):
    """A machine with GPUs that ssh reaches."""

    engine: Literal["ssh"]
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._@:%-]*$", max_length=255)]
    gpus: list[Annotated[int, Field(ge=0, le=1023)]] = [0]


class Slurm(Shell):
    """A Slurm cluster, its login node over ssh, or this machine where `host` is absent."""

    engine: Literal["slurm"]
    partition: Name | None = None
    account: Name | None = None
    nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    gpus_per_job: Annotated[int, Field(ge=0, le=1024)] = 1
    gpu_type: Name | None = None
    cpus: Annotated[int, Field(ge=1)] | None = None
    memory: Annotated[int, Field(ge=1)] | None = None
    time_limit: Annotated[int, Field(ge=1)] = 240
    signal_before: Annotated[int, Field(ge=0, le=3600)] = 120
    parallel: Annotated[int, Field(ge=1)] | None = None
    requeues: Annotated[int, Field(ge=0, le=1000)] = 20


class SkyPilot(Target):
    """A machine rented from a cloud by SkyPilot, for as long as a job runs."""

    engine: Literal["skypilot"]
    origin: Text | None = None
    cloud: Name | None = None
    region: Name | None = None
    accelerators: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(:[1-9][0-9]*)?$")] = "L4:1"
    spot: bool = True
    idle_minutes: Annotated[int, Field(ge=1)] = 5
    disk: Annotated[int, Field(ge=50)] = 100
    state_bucket: Annotated[str, Field(pattern=r"^[a-z0-9]+://[A-Za-z0-9._/-]+$")] | None = None


_ENGINES: dict[str, type[Target]] = {"local": Local, "ssh": Ssh, "slurm": Slurm, "skypilot": SkyPilot}


def holds_secret(text: str) -> bool:
    """Whether a text is or holds a known form of token, a private key, or an address with a password or a token."""
    return _SECRET_VALUE.search(text) is not None


def _texts(value: Any) -> list[str]:
    return [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]


def read_target(name: str | None, path: str | Path = RUNNER_FILE) -> tuple[str, Target]:
    """The target `name` of runner.yaml, checked, or its `default`; without a runner.yaml there is `local` alone.

    Raises LeafError with one line for the first mistake in the whole file.
    """
    default, targets = read_targets(path)
    name = name or default
    if name not in targets:
        raise LeafError(f"{path}: targets.{name}: no such target; valid: {', '.join(targets)}")
    return name, targets[name]


def read_targets(path: str | Path = RUNNER_FILE) -> tuple[str, dict[str, Target]]:
    """The default's name and every target of runner.yaml, checked."""
    if not Path(path).exists():
        return "local", {"local": Local(engine="local")}
    values = read_yaml(path)
    if not isinstance(values, dict) or not isinstance(values.get("targets"), dict) or not values["targets"]:
        raise LeafError(f"{path}: no targets; valid: default: NAME and targets: {{NAME: {{engine: …}}}}")
    for key in values:
        if key not in ("default", "targets"):
            raise LeafError(f"{path}: {key}: unknown key; valid: default, targets")
    targets = {str(name): check_target(str(name), value, path) for name, value in values["targets"].items()}
    default = values.get("default", next(iter(targets)))
    if default not in targets:
        raise LeafError(f"{path}: default: {default!r}; valid: {', '.join(targets)}")
    return default, targets


def check_target(name: str, values: Any, path: str | Path = RUNNER_FILE) -> Target:
    """One target from its mapping. Raises LeafError with one line for the first mistake."""
    where = f"{path}: targets.{name}"
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,50}", name):
        raise LeafError(f"{where}: valid names have letters, digits, _ and -")
    if not isinstance(values, dict):
        raise LeafError(f"{where}: {values!r}; valid: a mapping with `engine`")
    kind = _ENGINES.get(str(values.get("engine")))
    if kind is None:
        raise LeafError(f"{where}.engine: {values.get('engine')!r}; valid: {_VALID['engine']}")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise LeafError(f"{where}.{_first_mistake(error, kind)}") from None


def _first_mistake(error: ValidationError, kind: type[Target]) -> str:
    first = error.errors()[0]
    key = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key for engine {kind.__name__.lower()}; valid: {', '.join(kind.model_fields)}"
    if first["type"] == "missing":
        return f"{key}: missing; valid: {_VALID[key]}"
    if first["type"] == "value_error":
        return f"{key}: {first['ctx']['error']}"
    return f"{key}: {first['input']!r}; valid: {_VALID.get(key, 'see docs/remote.md')}"
