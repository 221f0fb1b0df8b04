"""Use git and DVC on this machine to push and fetch commits, experiments and data."""

import configparser
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from leaf.errors import LeafError, output_of
from leaf.runner.agent.task import host_key_refused
from leaf.runner.config import holds_secret


def git(*arguments: str) -> str:
    """Run git without prompting or accepting new host keys, and return its output. Raises LeafError if it fails."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    if subprocess.run(["git", "config", "core.sshCommand"], capture_output=True, check=False).returncode:
        environment.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes")
    return output_of("git", *arguments, env=environment)


def committed_revision() -> str:
    """Return the commit that the job runs. Raises LeafError if the working tree has uncommitted changes."""
    changes = git("status", "--porcelain").splitlines()
    if changes:
        more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
        raise LeafError(
            f"working tree: uncommitted changes in {changes[0][2:].strip()}{more}, but the target runs the last "
            "commit. Run `git add -A && git commit -m MESSAGE`."
        )
    return git("rev-parse", "HEAD")


def origin(remote: str) -> str:
    """Return the address of a git remote. Raises LeafError if there is none or it contains a secret."""
    address = git("remote", "get-url", remote)
    if holds_secret(address):
        raise LeafError(f"git remote {remote}: its address contains a secret. Use a credential helper or a key.")
    return address


def author() -> dict[str, str]:
    """Return the author for the experiments' commits. Raises LeafError if git has no user name or email."""
    values = {}
    for key, example in (("name", "NAME"), ("email", "NAME@EXAMPLE.ORG")):
        try:
            values[key] = git("config", f"user.{key}")
        except LeafError:
            raise LeafError(f"git user.{key}: not set. Run `git config --global user.{key} {example}`.") from None
    return values


def reference(revision: str, name: str) -> str:
    """Return the git reference of an experiment."""
    return f"refs/exps/{revision[:2]}/{revision[2:]}/{name}"


def taken(remote: str, revision: str, names: Iterable[str]) -> list[str]:
    """Return the `names` already used by experiments of this commit, locally or on the remote."""
    used = at_remote(remote, revision) | at_remote(".", revision)
    return [name for name in names if name in used]


def at_remote(remote: str, revision: str) -> set[str]:
    """Return the names of this commit's experiments on the git remote, or locally if `remote` is `.`."""
    folder = reference(revision, "")
    return {line.split()[1].removeprefix(folder) for line in git("ls-remote", remote, f"{folder}*").splitlines()}


def fetch_experiments(remote: str, revision: str, names: Sequence[str]) -> None:
    """Fetch experiments for `dvc exp show` with git; DVC's own git client ignores ssh settings."""
    references = [reference(revision, name) for name in names]
    git("fetch", "--quiet", remote, *(f"{name}:{name}" for name in references))


def choose_data_remote(name: str | None) -> tuple[str, str]:
    """Return the name and address of the DVC remote `name`, or of the default one, in the committed .dvc/config.

    Raises:
        LeafError: if there is no such remote or its address contains a secret.
    """
    config = configparser.ConfigParser(interpolation=None)
    config.read(Path(".dvc") / "config", encoding="utf-8")
    name = name or config.get("core", "remote", fallback=None)
    if name is None:
        raise LeafError(
            "DVC remote: not set, but the target gets the data from it. Run `dvc remote add -d NAME ADDRESS`."
        )
    section = f"'remote \"{name}\"'"
    if section not in config:
        named = (re.fullmatch(r"'remote \"(.+)\"'", other) for other in config.sections())
        valid = ", ".join(each[1] for each in named if each) or "none"
        raise LeafError(f"DVC remote {name}: not in .dvc/config (the target has no config.local); valid: {valid}")
    remote = dict(config.items(section))
    address = remote.get("url", "")
    if found := re.fullmatch(r"ssh://(?:([^/@]+)@)?([^/:@]+)(?::(\d+))?(/.*)?", address):
        user, host, port, path = found.groups()
        user, port = user or remote.get("user"), port or remote.get("port")  # DVC also has keys for user and port
        address = f"ssh://{f'{user}@' if user else ''}{host}{f':{port}' if port else ''}{path or ''}"
    if holds_secret(address):
        raise LeafError(
            f"DVC remote {name}: its address in .dvc/config contains a secret, and git tracks that file. "
            "Use `dvc remote modify --local` or a key."
        )
    return name, address


def ssh_host(address: str) -> str:
    """Return an ssh:// address without its path, as OpenSSH expects it, or an empty string for other addresses."""
    found = re.match(r"ssh://[^/]+", address)
    return found[0] if found else ""


def push_data(remote: str, address: str) -> None:
    """Push the commit's data to a DVC remote. Raises LeafError if the push fails."""
    check_host_key(address)
    answer = subprocess.run(["dvc", "push", "--quiet", "-r", remote], capture_output=True, text=True, check=False)
    if answer.returncode:
        lines = [line for line in answer.stderr.splitlines() if line.strip()]
        raise LeafError(f"dvc push: {lines[0] if lines else 'failed'}")


def fetch_outputs(remote: str, address: str, references: Sequence[str]) -> None:
    """Fetch the outputs of experiments into the DVC cache, for `dvc exp apply`. Raises LeafError if the fetch fails."""
    # `dvc fetch` does not accept a revision, and `dvc exp pull` uses DVC's own git client.
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    check_host_key(address)
    try:
        with Repo() as repo:
            repo.fetch(revs=[git("rev-parse", name) for name in references], workspace=False, remote=remote)
    except DvcException as error:
        raise LeafError(f"DVC remote {remote}: {str(error).splitlines()[0]}") from None


def check_host_key(address: str) -> None:
    """Raise LeafError if OpenSSH does not trust the host of an ssh:// address."""
    host = ssh_host(address)
    if host and (refused := host_key_refused(host, dict(os.environ))):
        raise LeafError(refused)
