"""The schema of runner.yaml, which defines the targets of `leaf submit` and must not contain secrets."""

import re
import reprlib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from leaf.errors import LeafError
from leaf.store import read_yaml

RUNNER_FILE = "runner.yaml"

# Names that indicate secrets: substrings, or whole words between underscores.
_SECRET = re.compile(
    r"token|secret|passw|pgpass|credential|private|(api|access|account)_?key|(^|_)(pat|pass|pwd|pw|keys?|auth|dsn)\d*(_|$)",
    re.IGNORECASE,
)
# Token formats of well-known services, private keys, and addresses with a password or token.
_SECRET_VALUE = re.compile(
    r"gh[oprsu]_[A-Za-z0-9]{20}|github_pat_|glpat-|hf_[A-Za-z0-9]{20}|npm_[A-Za-z0-9]{20}|dckr_pat_|pypi-[A-Za-z0-9_-]{20}"
    r"|\b[sr]k_(live|test)_[A-Za-z0-9]{10}|\bsk-[A-Za-z0-9_-]{20}|xox[abprse]-|xapp-|hooks\.slack\.com/(services|workflows)/"
    r"|\bA[KS]IA[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{30}|\bya29\.|\bSG\.[A-Za-z0-9_-]{16,}\.|\beyJ[A-Za-z0-9_-]{10,}\."
    r"|\bdop_v1_|\bnvapi-|\bhvs\.|\bBearer\s+[A-Za-z0-9]|\bsshpass\s+-p|\bwandb login [0-9a-f]{20}|\s-u\s*\w+:[^\s$]"
    r"|-----BEGIN [A-Z ]*PRIVATE|[a-z+]+://[^/@\s]*:[^/@\s]+@|https?://[^/@\s]+@"
)
# `NAME=value`, `NAME: value`, `${NAME:-value}`, `--name value` and `set NAME value` in a script. A value with a leading
# $ is expanded on the target, so it is not a secret.
_VALUE = r"[\"']?([^\s\"'$<`}][^\s\"']*)"
_ASSIGNMENTS = (
    re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)(?:\s*=\s*|(?<=\w)\s*:\s+|:-)" + _VALUE),
    re.compile(r"(?:\s--?|\bset\s+)([A-Za-z][A-Za-z0-9_-]*(?<!-stdin)(?<!-file))\s+(?!-)" + _VALUE),
)

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=100)]
Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f]*$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Gpu = Annotated[int, Field(ge=0, le=1023)]


def _key(default: Any, valid: str, **limits: Any) -> Any:
    """Define a key with its default and, for error messages, its valid values."""
    return Field(default, description=valid, **limits)


class Target(BaseModel):
    """Keys of a target that all engines support."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    engine: str
    git_remote: Name = _key("origin", "a remote that `git remote` prints")
    dvc_remote: Name | None = _key(None, "a remote that `dvc remote list` prints")
    setup: str | None = _key(None, "a shell script that creates the environment in $LEAF_ENVIRONMENT")
    path: list[Text] = _key([], "a list of folders to prepend to PATH")
    environment: dict[Variable, str] = _key({}, "a mapping of names to strings, without secrets")
    hourly_cost: float | None = _key(None, "a number > 0 (dollars per hour), or null", gt=0)
    needs_remote: ClassVar[bool] = True

    @field_validator("*")
    @classmethod
    def _no_secret(cls, value: Any) -> Any:
        texts = value if isinstance(value, list) else [value]
        named = value.items() if isinstance(value, dict) else [("", text) for text in texts if isinstance(text, str)]
        for name, text in named:
            if _SECRET.search(name) or holds_secret(text):
                raise ValueError(f"{name or 'its value'} looks like a secret. Set it on the target itself.")
        return value


_ORIGIN = "the address of the git remote as seen from the target"
_HOST: dict[str, Any] = {
    "valid": "a name in your ssh configuration, or user@name",
    "pattern": r"^[A-Za-z0-9_][A-Za-z0-9._@:%-]*$",
    "max_length": 255,
}


class Shell(Target):
    """A target that runs commands on this machine or over ssh."""

    host: str | None = _key(None, **_HOST)
    ssh_config: Text | None = _key(None, "an ssh configuration file, as passed to `ssh -F`")
    folder: str = _key("~/leaf", "a path on the target that starts with / or ~/", pattern=r"^(/|~/)[^\x00-\x1f]*$")
    origin: Text | None = _key(None, _ORIGIN)
    python: Text = _key("python3", "a Python interpreter, 3.8 or newer")


class GpuTarget(Target):
    """A machine whose GPUs each run one experiment at a time."""

    gpus: list[Gpu] = _key([], "a list of GPU indices; [] for one job at a time without a GPU")
    gpus_per_job: int = _key(1, "an integer ≥ 1", ge=1)

    @field_validator("gpus_per_job")
    @classmethod
    def _no_more_than_there_are(cls, value: int, info: ValidationInfo) -> int:
        if value > (most := max(1, len(info.data.get("gpus", [])))):
            valid = f"1 to {most}, the number of `gpus`" if most > 1 else "1, unless `gpus` lists several GPUs"
            raise ValueError(f"{value}; valid: {valid}")
        return value


class Local(GpuTarget):
    """This machine. Experiments run in clean clones that share the project's DVC cache. No remote is required."""

    engine: Literal["local"]
    needs_remote: ClassVar[bool] = False


class Ssh(GpuTarget, Shell):
    """A GPU machine, reached over ssh."""

    engine: Literal["ssh"]
    host: str = _key(..., **_HOST)
    gpus: list[Gpu] = _key([0], "a list of GPU indices; [] for one job at a time without a GPU")


class Slurm(Shell):
    """A Slurm cluster. `host` is its login node, or None if `sbatch` is on this machine."""

    engine: Literal["slurm"]
    partition: Name | None = _key(None, "a name that `sinfo` prints")
    account: Name | None = _key(None, "a name of letters, digits, . _ and -")
    nodes: int = _key(1, "an integer from 1 to 1024", ge=1, le=1024)
    gpus_per_job: int = _key(1, "an integer from 0 to 1024", ge=0, le=1024)
    gpu_type: Name | None = _key(None, "a GPU type that `sinfo -o %G` prints")
    cpus: int | None = _key(None, "an integer ≥ 1", ge=1)
    memory: int | None = _key(None, "an integer ≥ 1 (gigabytes)", ge=1)
    time_limit: int = _key(240, "an integer ≥ 1 (minutes)", ge=1)
    signal_before: int = _key(120, "an integer from 0 to 3600 (seconds before the time limit)", ge=0, le=3600)
    parallel: int | None = _key(None, "an integer ≥ 1, or null for no limit", ge=1)
    requeues: int = _key(20, "an integer from 0 to 1000", ge=0, le=1000)


class SkyPilot(Target):
    """A machine that SkyPilot rents for one job."""

    engine: Literal["skypilot"]
    origin: Text | None = _key(None, _ORIGIN)
    cloud: Name | None = _key(None, "a cloud that `sky check` prints, or null for the cheapest")
    region: Name | None = _key(None, "a region of the cloud in `cloud`, or null")
    accelerators: str = _key(
        "L4:1", "a GPU in SkyPilot notation, such as L4:1", pattern=r"^[A-Za-z0-9_-]+(:[1-9][0-9]*)?$"
    )
    spot: bool = _key(True, "true, false")
    idle_minutes: int = _key(5, "an integer ≥ 1 (minutes)", ge=1)
    disk: int = _key(100, "an integer ≥ 50 (gigabytes)", ge=50)
    state_bucket: str | None = _key(
        None, "a bucket URL such as s3://name, or null", pattern=r"^[a-z0-9]+://[A-Za-z0-9._/-]+$"
    )


_ENGINES: dict[str, type[Target]] = {"local": Local, "ssh": Ssh, "slurm": Slurm, "skypilot": SkyPilot}


def holds_secret(text: str) -> bool:
    """Return whether `text` contains a known token format, a private key, a URL with a password, or `password=…`."""
    return _SECRET_VALUE.search(text) is not None or any(
        _SECRET.search(found[1].replace("-", "_")) and not found[2].startswith("/")
        for form in _ASSIGNMENTS
        for found in form.finditer(text)
    )


def read_target(name: str | None, path: str | Path = RUNNER_FILE) -> tuple[str, Target]:
    """Return the name and keys of the target `name` in runner.yaml, or of the default target.

    Without runner.yaml, the only target is `local`. Raises LeafError if the file is invalid or has no such target.
    """
    default, targets = read_targets(path)
    name = name or default
    if name not in targets:
        raise LeafError(f"{path}: targets.{name}: no such target; valid: {', '.join(targets)}")
    return name, targets[name]


def read_targets(path: str | Path = RUNNER_FILE) -> tuple[str, dict[str, Target]]:
    """Return the name of the default target, and all targets by name."""
    if not Path(path).exists():
        return "local", {"local": Local(engine="local")}
    values = read_yaml(path)
    if not isinstance(values, dict) or not isinstance(values.get("targets"), dict) or not values["targets"]:
        raise LeafError(f"{path}: no targets. Define one: `targets: {{NAME: {{engine: ENGINE}}}}`.")
    for key in values:
        if key not in ("default", "targets"):
            raise LeafError(f"{path}: {key}: unknown key; valid: default, targets")
    targets = {str(name): check_target(str(name), value, path) for name, value in values["targets"].items()}
    default = values.get("default", next(iter(targets)))
    if not isinstance(default, str) or default not in targets:
        raise LeafError(f"{path}: default: {reprlib.repr(default)}; valid: {', '.join(targets)}")
    return default, targets


def check_target(name: str, values: Any, path: str | Path = RUNNER_FILE) -> Target:
    """Validate the keys of the target `name`. Raises LeafError for the first invalid key."""
    where = f"{path}: targets.{name}"
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,50}", name):
        raise LeafError(f"{where}: not a valid name; valid: at most 50 letters, digits, _ and -")
    if not isinstance(values, dict):
        raise LeafError(f"{where}: {reprlib.repr(values)}; valid: a mapping with `engine`")
    engine = values.get("engine")
    kind = _ENGINES.get(engine) if isinstance(engine, str) else None
    if kind is None:
        raise LeafError(f"{where}.engine: {reprlib.repr(engine)}; valid: {', '.join(_ENGINES)}")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
    key = str(first["loc"][0])
    where = f"{where}.{key}"
    if first["type"] == "extra_forbidden":
        raise LeafError(f"{where}: unknown key for engine {engine}; valid: {', '.join(kind.model_fields)}")
    if first["type"] == "value_error":
        raise LeafError(f"{where}: {first['ctx']['error']}")
    value = "missing" if first["type"] == "missing" else reprlib.repr(first["input"])
    raise LeafError(f"{where}: {value}; valid: {kind.model_fields[key].description}")
