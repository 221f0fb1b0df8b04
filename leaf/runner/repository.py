"""The laptop's side of the round trip: what is committed, pushed, and fetched; plain git and dvc."""

import configparser
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from leaf.errors import LeafError
from leaf.runner.agent.task import host_key_refused
from leaf.runner.config import holds_secret


def git(*arguments: str) -> str:
    """What git prints. Raises LeafError with its last line of complaint where it fails."""
    answer = subprocess.run(["git", *arguments], capture_output=True, text=True, env=_environment(), check=False)
    if answer.returncode:
        complaint = [line for line in answer.stderr.splitlines() if line.strip() and not line.startswith("hint:")]
        raise LeafError(f"git {arguments[0]}: {complaint[-1] if complaint else 'failed'}")
    return answer.stdout.strip()


def committed_revision() -> str:
    """The commit that will run. Raises LeafError where the working tree has changes that it lacks."""
    changes = git("status", "--porcelain").splitlines()
    if changes:
        more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
        raise LeafError(
            f"working tree: {changes[0][2:].strip()}{more} not committed, and the target runs the commit; "
            "say `git add -A && git commit -m MESSAGE`"
        )
    return git("rev-parse", "HEAD")


def origin(remote: str) -> str:
    """The address of the git remote. Raises LeafError where there is none, or where it holds a password."""
    address = git("remote", "get-url", remote)
    if holds_secret(address):
        raise LeafError(f"git remote {remote}: its address holds a secret; use a credential helper or a key instead")
    return address


def author() -> dict[str, str]:
    """Who commits the experiments on the target."""
    return {"name": git("config", "user.name"), "email": git("config", "user.email")}


def publish(remote: str, revision: str) -> None:
    """Push the commit, under refs/leaf so that no branch moves."""
    git("push", "--quiet", remote, f"{revision}:refs/leaf/{revision}")


def reference(revision: str, name: str) -> str:
    """Where git keeps an experiment."""
    return f"refs/exps/{revision[:2]}/{revision[2:]}/{name}"


def taken(remote: str, revision: str, names: Iterable[str]) -> list[str]:
    """Those of the names that experiments of this commit have, here or at the remote (`dvc exp push` hides that)."""
    folder = reference(revision, "")
    here = {line.removeprefix(folder) for line in git("for-each-ref", "--format=%(refname)", folder).splitlines()}
    there = at_remote(remote, revision, names)
    return [name for name in names if name in here or name in there]


def at_remote(remote: str, revision: str, names: Iterable[str]) -> list[str]:
    """Those of the names that experiments of this commit have at the git remote."""
    folder = reference(revision, "")
    found = {line.split()[-1].removeprefix(folder) for line in git("ls-remote", remote, f"{folder}*").splitlines()}
    return [name for name in names if name in found]


def fetch_experiments(remote: str, revision: str, names: Sequence[str]) -> None:
    """Fetch experiments, so that `dvc exp show` has them; plain git, for DVC's own way ignores ssh's settings."""
    references = [reference(revision, name) for name in names]
    git("fetch", "--quiet", remote, *(f"{name}:{name}" for name in references))


def data_remotes() -> tuple[str | None, dict[str, str]]:
    """The default DVC remote and the address of each, of the committed .dvc/config, which the target sees."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(Path(".dvc") / "config", encoding="utf-8")
    remotes = {}
    for section in config.sections():
        if found := re.fullmatch(r"'remote \"(.+)\"'", section):
            remotes[found[1]] = _address(dict(config.items(section)))
    return config.get("core", "remote", fallback=None), remotes


def choose_data_remote(name: str | None) -> tuple[str, str]:
    """The DVC remote `name`, or the default one, and its address. Raises LeafError where there is none."""
    default, remotes = data_remotes()
    name = name or default
    if name is None:
        raise LeafError("DVC remote: none, and the data must reach the target; say `dvc remote add -d NAME ADDRESS`")
    if name not in remotes:
        valid = ", ".join(remotes) or "none"
        raise LeafError(f"DVC remote {name}: not in .dvc/config (a local one is unknown to the target); valid: {valid}")
    if holds_secret(remotes[name]):
        raise LeafError(
            f"DVC remote {name}: its address in .dvc/config holds a secret, and git keeps that file; "
            "use `dvc remote modify --local` or a key"
        )
    return name, remotes[name]


def _address(remote: dict[str, str]) -> str:
    """A DVC remote's address; a user and a port that stand beside an ssh:// address are put into it."""
    address = remote.get("url", "")
    found = re.fullmatch(r"ssh://(?:([^/@]+)@)?([^/:@]+)(?::(\d+))?(/.*)?", address)
    if not found:
        return address
    user, host, port, path = found.groups()
    user, port = user or remote.get("user", ""), port or remote.get("port", "")
    return f"ssh://{user}{'@' if user else ''}{host}{':' if port else ''}{port}{path or ''}"


def ssh_host(address: str) -> str:
    """The ssh:// address without its path, which OpenSSH takes as a destination; empty for any other address."""
    found = re.match(r"ssh://[^/]+", address)
    return found[0] if found else ""


def push_data(remote: str, address: str) -> None:
    """Push what the commit's files name to the DVC remote. Raises LeafError where that fails."""
    _check_host_key(address)
    answer = subprocess.run(["dvc", "push", "--quiet", "-r", remote], capture_output=True, text=True, check=False)
    if answer.returncode:
        complaint = [line for line in answer.stderr.splitlines() if line.strip()]
        raise LeafError(f"dvc push: {complaint[0] if complaint else 'failed'}")


def fetch_outputs(remote: str, address: str, references: Sequence[str]) -> None:
    """Fetch what experiments made into DVC's cache, where `dvc exp apply` looks for it and fails if it is not there.

    `dvc fetch` takes no revision and `dvc exp pull` asks git's remote in DVC's own way, so this calls DVC from Python.
    Raises LeafError where that fails.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    _check_host_key(address)
    try:
        with Repo() as repo:
            repo.fetch(revs=[git("rev-parse", name) for name in references], workspace=False, remote=remote)
    except DvcException as error:
        raise LeafError(f"DVC remote {remote}: {str(error).splitlines()[0]}") from None


def _check_host_key(address: str) -> None:
    host = ssh_host(address)
    if host and (refused := host_key_refused(host, dict(os.environ))):
        raise LeafError(refused)


def _environment() -> dict[str, str]:
    """Git must never ask: a question would hang where nobody reads it, and a new host key is no yes."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    configured = subprocess.run(["git", "config", "core.sshCommand"], capture_output=True, check=False).returncode == 0
    if not configured:
        environment.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes")
    return environment
