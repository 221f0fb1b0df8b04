"""Read experiments.yaml, and apply settings to params.yaml."""

import contextlib
import re
import shlex
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from leaf import params
from leaf.errors import LeafError
from leaf.store import parse_yaml, read_yaml

EXPERIMENTS_FILE = "experiments.yaml"
_INSTALLED = Path(__file__).parent / "project" / "template" / EXPERIMENTS_FILE  # for projects without their own file

_COLON = re.compile(r"""("[^"]*"|'[^']*')|:(?=\S)""")  # a colon outside quotes
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_WORDS = {"null", "true", "false", "inf", "nan"}  # words that have a special meaning in Hydra if unquoted


class Experiment(BaseModel):
    """A row of experiments.yaml: its purpose, its settings, and the accuracy claimed in a report."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    why: str
    set: dict[str, Any]
    claimed: str | float | None = None


def read_experiments(path: str | Path | None = None) -> dict[str, Experiment]:
    """Return all rows by name. Raises LeafError if a row is invalid."""
    path = path or (EXPERIMENTS_FILE if Path(EXPERIMENTS_FILE).exists() else _INSTALLED)
    rows = read_yaml(path) or {}
    if not isinstance(rows, dict):
        raise LeafError(f"{path}: not a mapping; valid: NAME: {{why: …, set: {{key: value}}}}")
    experiments = {}
    for name, row in rows.items():
        try:
            experiments[str(name)] = Experiment.model_validate(row)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise LeafError(f"{path}: {name}.{where}: {error.errors()[0]['msg']}; valid: why, set, claimed") from None
        with_settings({}, experiments[str(name)].set, f"{path}: {name}")
    return experiments


def experiment(name: str, path: str | Path | None = None) -> Experiment:
    """Return one row. Raises LeafError if the name is unknown."""
    rows = read_experiments(path)
    if name not in rows:
        raise LeafError(f"{path or EXPERIMENTS_FILE}: {name}: no such experiment; valid: {', '.join(rows)}")
    return rows[name]


# Keys that describe the data. Rows use the working values of these keys and the committed values of all others.
DATA_KEYS = (
    *("dataset", "labels", "columns", "encoding", "masks", "unlabelled", "group_by"),
    *("classes", "ignore", "links", "unreadable", "drawn"),
)


def committed_params(root: str | Path = ".") -> dict[str, Any]:
    """Return the committed params.yaml in `root`, or the working file if there is no valid one."""
    # In the template of `leaf init`, params.yaml is a link to the repository's file.
    root = Path(root, params.PARAMS_FILE).resolve().parent
    done = subprocess.run(
        ["git", "show", f"HEAD:./{params.PARAMS_FILE}"], cwd=root, check=False, capture_output=True, text=True
    )
    if done.returncode == 0:
        with contextlib.suppress(LeafError):
            values = parse_yaml(done.stdout, f"HEAD:{params.PARAMS_FILE}")
            return params.validate(values, f"HEAD:{params.PARAMS_FILE}").model_dump(mode="json")
    return read_yaml(Path(root, params.PARAMS_FILE)) or {}


def row_settings(name: str) -> tuple[dict[str, Any], list[str]]:
    """Return the settings that turn the working params.yaml into the row `name`, and a message for each reset key.

    A row combines the committed params.yaml, the working values of `DATA_KEYS`, and its own settings, so its parameters
    do not depend on earlier experiments. Two working values take precedence over the row's: an `image_size` that is
    neither the default nor set by any row, and, over `weights: imagenet`, a weights file for the same backbone.
    """
    chosen = dict(experiment(name).set)
    working, committed = params.flatten(read_yaml(params.PARAMS_FILE) or {}), params.flatten(committed_params())
    own_weights = working.get("weights") not in ("random", "imagenet", None)
    if own_weights and chosen.get("weights") == "imagenet" and working.get("backbone") == chosen["backbone"]:
        chosen |= {key: working[key] for key in ("weights", "weights_sha256") if key in working}
    kept = set(DATA_KEYS)
    sizes = {row.set.get("image_size") for row in read_experiments().values()}
    sizes.add(params.Params.model_fields["image_size"].default)
    if {working.get("image_size"), committed.get("image_size")} - sizes:  # a custom size
        chosen.pop("image_size", None)
    if working.get("image_size") not in sizes:
        kept.add("image_size")
    reset = {
        key: committed[key]
        for key, value in working.items()
        if key in committed and committed[key] != value and key not in chosen and key.partition(".")[0] not in kept
    }
    lines = [
        f"{name}: {key}: using the committed value {_hydra(value)} instead of {_hydra(working[key])} in params.yaml. "
        f"To use {_hydra(working[key])}, commit params.yaml or add -S {key}={_hydra(working[key])}"
        for key, value in reset.items()
    ]
    return {**reset, **chosen}, lines


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Parse `key=value` strings, as passed to -S, into a dict of YAML values. Raises LeafError if a part is missing."""
    parsed = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise LeafError(f"-S {text}: not a setting. Use key=value.")
        if value.startswith("{"):  # unlike DVC, YAML requires a space after the colon
            value = _COLON.sub(lambda found: found[1] or ": ", value)
        parsed[key] = parse_yaml(value, f"-S {key}")
    return parsed


def with_settings(values: Mapping[str, Any], settings: Mapping[str, Any], name: str = "-S") -> params.Params:
    """Apply dotted `settings` to `values` and validate the result; `name` is their source in error messages."""
    merged: dict[str, Any] = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for key, value in settings.items():
        group, _, leaf = key.partition(".")
        if leaf:
            inner = merged.setdefault(group, {})
            if not isinstance(inner, dict):
                raise LeafError(f"{name}: {key}: {group} is a single value and has no nested keys. Set {group} itself.")
            inner[leaf] = value
        else:
            merged[group] = value
    return params.validate(merged, name)


def dvc_settings(settings: Mapping[str, Any]) -> list[str]:
    """Return `key=value` for each setting, quoted for `dvc exp run -S` (Hydra), not for a shell."""
    texts = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            # Reset the key first: Hydra merges a mapping with the existing value, and fails if that is a list.
            texts.append(f"{key}=null")
        texts.append(f"{key}={_hydra(value)}")
    return texts


def command_line(settings: Mapping[str, Any]) -> str:
    """Return the `dvc exp run` command for `settings`, quoted for a shell."""
    return " ".join(["dvc exp run", *(f"-S {shlex.quote(text)}" for text in dvc_settings(settings))])


def with_commands(error: LeafError, settings: Mapping[str, Any]) -> LeafError:
    """Return `error` with a command for each of its proposals, combined with `settings`."""
    lines = [command_line({**settings, **proposal}) for proposal in error.proposals]
    return LeafError(f"{str(error).rstrip('.')}. Run: {'  or  '.join(lines)}") if lines else error


def _hydra(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_hydra_key(key)}:{_hydra(item)}" for key, item in value.items()) + "}"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_hydra, value))}]"
    if isinstance(value, str) and (value.lower() in _WORDS or not _PLAIN.fullmatch(value)):
        return '"' + re.sub(r'(\\*)("|\$\{|\Z)', _escape, value) + '"'
    return str(value)


def _hydra_key(key: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_ -]*", key) or key.lower() in _WORDS:
        raise LeafError(f"-S: DVC does not accept the key {key!r}. Set it in {params.PARAMS_FILE}.")
    return key.replace(" ", "\\ ")


def _escape(found: re.Match[str]) -> str:
    """Escape quotes, `${` (which could read environment variables), and backslashes before them."""
    return found[1] * 2 + (f"\\{found[2]}" if found[2] else "")
