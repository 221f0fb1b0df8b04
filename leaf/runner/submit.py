"""Submit a job: check here what can be checked, push code and data, hand it to the engine."""

import secrets
import time
from typing import Any

from leaf.errors import LeafError
from leaf.runner import repository
from leaf.runner.config import Local, Target
from leaf.runner.engines import engine_for
from leaf.runner.plan import Planned
from leaf.runner.records import Record, read_records
from leaf.runner.transport import ConnectionLostError

PROTOCOL = 1


def submit(name: str, target: Target, planned: list[Planned]) -> tuple[Record, str]:
    """Send the experiments to the target `name`; the answer is the job's record and where it is there.

    Raises LeafError, with nothing started, where the working tree has changes, a name is taken, or a push fails.
    """
    revision = repository.committed_revision()
    remote = "." if isinstance(target, Local) else target.git_remote
    address = _origin(target)
    names = [one.name for one in planned]
    if used := repository.taken(remote, revision, names) or _under_way(revision, names):
        raise LeafError(f"{used[0]}: an experiment of this commit has that name; choose another with --name")
    engine = engine_for(target)
    job = _job(target, address, revision, planned) | engine.job()
    if target.needs_remote:
        repository.push_data(job["remote"], repository.data_remotes()[1][job["remote"]])
    repository.publish(remote, revision)
    identity = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    record = Record(identity, name, target.model_dump(exclude_unset=True), revision, planned)
    record.write()
    try:
        place = engine.submit(record, job)
    except ConnectionLostError:
        raise  # it may run: the record stays, and `leaf jobs` tells
    except BaseException:
        record.remove()
        raise
    return record, place


def _origin(target: Target) -> str:
    if isinstance(target, Local):
        return repository.git("rev-parse", "--show-toplevel")
    own = repository.origin(target.git_remote)
    return getattr(target, "origin", None) or own


def _job(target: Target, address: str, revision: str, planned: list[Planned]) -> dict[str, Any]:
    """The content of job.json, before the engine's own part."""
    remote, host = None, ""
    if target.needs_remote:
        remote, data = repository.choose_data_remote(target.dvc_remote)
        host = repository.ssh_host(data)
    return {
        "protocol": PROTOCOL,
        "origin": address,
        "revision": revision,
        "remote": remote,
        "remote_host": host,
        "author": repository.author(),
        "setup": target.setup,
        "path": target.path,
        "environment": target.environment,
        "devices": [],
        "cache": None,
        "state": True,
        "requeues": 0,
        "stream": False,  # SkyPilot keeps the log itself
        "experiments": [{"name": one.name, "set": list(one.settings)} for one in planned],
    }


def _under_way(revision: str, names: list[str]) -> list[str]:
    """Those of the names that a job of this commit, whose end is not known here, has."""
    busy = {
        record.experiments[index].name
        for record in read_records()
        if record.revision == revision
        for index in record.open
    }
    return [name for name in names if name in busy]
