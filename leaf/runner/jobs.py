"""Submit, list, follow, fetch and cancel jobs."""

import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from leaf import params
from leaf.errors import LeafError, plural, printable
from leaf.experiments import parse_settings, with_settings
from leaf.runner import repository
from leaf.runner.config import Local, Shell, Target, check_target
from leaf.runner.plan import ENDED, Planned, Record, choose, read_records
from leaf.runner.skypilot import CloudEngine
from leaf.runner.slurm import SlurmEngine
from leaf.runner.ssh import ConnectionLostError, ProcessEngine, Status
from leaf.store import EPOCH, epoch_key, load_cached_value, read_yaml, span, valid_or_none

Say = Callable[[str], None]
_CONTROL = re.compile(r"[^\S \t\n\r]|[\x00-\x08\x0e-\x1f\x7f-\x9f]")  # removed from logs to protect the terminal


def engine_for(target: Target) -> ProcessEngine | CloudEngine:
    """Return the engine of a target. Its methods raise ConnectionLostError if the target is unreachable."""
    kinds: dict[str, Any] = {"slurm": SlurmEngine, "skypilot": CloudEngine}
    return kinds.get(target.engine, ProcessEngine)(target)


def submit(name: str, target: Target, planned: list[Planned]) -> tuple[Record, str]:
    """Send the experiments to the target `name`. Return the job's record and its location on the target.

    Raises:
        LeafError: if the working tree has changes, a name is taken, or a push fails. Nothing is started in these cases.
    """
    revision = repository.committed_revision()
    local = isinstance(target, Local)
    remote = "." if local else target.git_remote
    own = repository.git("rev-parse", "--show-toplevel") if local else repository.origin(remote)
    names = [one.name for one in planned]
    if used := repository.taken(remote, revision, names) or _under_way(revision, names):
        raise LeafError(
            f"{used[0]}: an experiment on this commit already has this name. Choose a different name with --name."
        )
    engine = engine_for(target)
    data = None if local else repository.choose_data_remote(target.dvc_remote)
    job = {
        "origin": getattr(target, "origin", None) or own,
        "revision": revision,
        "remote": data and data[0],
        "remote_host": data and repository.ssh_host(data[1]),
        "author": repository.author(),
        "setup": target.setup,
        "path": target.path,
        "environment": target.environment,
        "devices": [],
        "devices_each": 1,
        "cache": None,
        "state": True,
        "requeues": 0,
        "stream": False,  # SkyPilot keeps the log
        "experiments": [{"name": one.name, "set": list(one.settings)} for one in planned],
        **engine.job(),
    }
    if data:
        repository.push_data(*data)
    repository.git("push", "--quiet", remote, f"{revision}:refs/leaf/{revision}")  # updates no branch
    identity = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    record = Record(identity, name, target.model_dump(exclude_unset=True), revision, planned)
    record.write()
    try:
        place = engine.submit(record, job)
    except ConnectionLostError:
        raise  # the job may be running, so keep the record for `leaf jobs`
    except BaseException:
        record.path.unlink(missing_ok=True)
        raise
    return record, place


def expected(name: str, target: Target, planned: list[Planned]) -> Iterator[str]:
    """Yield a line per experiment with its memory, maximum time and cost, from its last run on the target."""
    values = read_yaml(params.PARAMS_FILE) or {}
    there: dict[str, Any] = {}
    if isinstance(target, Shell):
        try:
            there = ProcessEngine(target).host.call("trainings", folder=target.folder)["trainings"]
        except LeafError as error:  # reported here for --dry-run; `submit` raises the error
            yield f"memory, time and cost are unknown: {error}"
            return
    for one in planned:
        texts = [text.replace("\\${", "${") for text in one.settings]  # DVC's only non-YAML escape sequence
        choices = with_settings(values, parse_settings(texts), one.name)
        key = epoch_key(choices)
        local = isinstance(target, Local)
        took = load_cached_value("epochs", key, EPOCH) if local else valid_or_none(there.get(key), EPOCH)
        of = f"{one.name} on {name}: {choices.backbone} at {choices.image_size} pixels"
        if took is None:
            yield f"{of}: memory, time and cost are unknown until the first run with these settings on {name}"
            continue
        longest = choices.epochs * took["seconds"]
        cost = "cost unknown (set hourly_cost)"
        if target.hourly_cost:
            cost = f"{target.hourly_cost * longest / 3600:.2f} dollars"
        used = f"{took['memory'] / 2**30:.1f} GiB and {span(took['seconds'])} per epoch of {took['images']:,} images"
        most = f"{plural(choices.epochs, 'epoch')}: at most {span(longest)}, {cost}"
        yield f"{of}: the last run with these settings used {used}; {most}"


def _under_way(revision: str, names: list[str]) -> list[str]:
    """Return which of `names` are used by unfinished jobs of this commit, after querying their targets."""
    busy: set[str] = set()
    for record in read_records():
        if record.revision == revision and {*record.open} & {*names}:
            with suppress(LeafError):  # jobs on an unreachable target count as unfinished
                for name, status in statuses(record).items():
                    if status.state in ENDED and status.state != "done":  # a `done` experiment has yet to be fetched
                        record.ended[name] = status.state
                record.write()
            busy.update(record.open)
    return [name for name in names if name in busy]


def engine_of(record: Record) -> Any:
    """Return the engine of a submitted job."""
    return engine_for(check_target(record.target, record.settings))


def statuses(record: Record) -> dict[str, Status]:
    """Return the state of each experiment. Query the target only if the final state of one is unknown."""
    if not record.open:
        return {name: Status(record.ended[name]) for name in record.names}
    pairs = zip(record.names, engine_of(record).status(record), strict=True)
    return {name: Status(record.ended.get(name, new.state), new.note) for name, new in pairs}


def listing(names: list[str]) -> list[str]:
    """Return the lines of a table of experiments and their states. States on an unreachable target are `unknown`."""
    rows = [["JOB", "TARGET", "EXPERIMENT", "STATE", "NOTE"]]
    for record, chosen in choose(names):
        try:
            now = statuses(record)
        except LeafError as error:
            now = dict.fromkeys(record.names, Status("unknown", str(error)))
        rows += [[printable(cell) for cell in (record.id, record.target, name, *now[name])] for name in chosen]
    if len(rows) == 1:
        return ["no jobs. Start one with `leaf submit`."]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def fetch(names: list[str], wait: bool, models: bool, every: float, say: Say) -> int:
    """Fetch the results of finished experiments into this repository. Return 0 if all are done, otherwise 1.

    With `wait`, wait until all have ended, and report a lost connection once while retrying. With `models`, also fetch
    the outputs into the DVC cache.
    """
    chosen = choose(names)
    silent = False
    while True:
        for record, _ in chosen:
            try:
                _collect(record, say)
                silent = False
            except ConnectionLostError as error:
                if not wait:
                    raise
                if not silent:
                    say(f"{error}. The job continues; retrying.")
                silent = True
        missing = sum(len(record.open) for record, _ in chosen)
        if not missing or not wait:
            break
        time.sleep(every)
    done = [(record, [one for one in names if record.ended.get(one) == "done"]) for record, names in chosen]
    for record, names in done if models else []:
        target = engine_of(record).target
        if names and target.needs_remote:
            references = [repository.reference(record.revision, name) for name in names]
            repository.fetch_outputs(*repository.choose_data_remote(target.dvc_remote), references)
    if missing:
        say(f"experiments not finished: {missing}. To wait for all, run `leaf fetch --wait`.")
    return 0 if done == chosen else 1


def _collect(record: Record, say: Say) -> None:
    """Record the final states of open experiments, and fetch the experiments that are done."""
    if not record.open:
        return
    now = statuses(record)
    ended = {name: now[name] for name in record.open if now[name].state in ENDED}
    done = [name for name, status in ended.items() if status.state == "done"]
    target = engine_of(record).target
    if done and target.needs_remote:
        repository.fetch_experiments(target.git_remote, record.revision, done)
    for name, (state, note) in ended.items():
        record.ended[name] = state
        say(printable(f"{name}: {state}{': ' if note else ''}{note}"))
    record.write()


def follow(name: str | None, on: bool, every: float) -> Iterator[str]:
    """Yield the log of an experiment (default: the newest) in parts. With `on`, continue until the experiment ends."""
    newest = [(record, record.names[:1]) for record in read_records()[-1:]]
    for record, names in newest if name is None else choose([name]):
        engine = engine_of(record)
        for one in names:
            if len(names) > 1:
                yield f"==> {one} <==\n"
            offset = 0
            while True:
                try:
                    # read the state before the log, so that the last part is not missed
                    ended = not on or statuses(record)[one].state in ENDED
                    text, offset = engine.log(record, one, offset)
                except ConnectionLostError:
                    if not on:
                        raise
                    time.sleep(every)
                    continue
                yield _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
                if ended and not text:
                    break
                if not text:
                    time.sleep(every)


def cancel(names: list[str], say: Say) -> None:
    """Cancel the named jobs or experiments."""
    for record, chosen in choose(names):
        ended = engine_of(record).cancel(record, chosen)
        for name in chosen:
            say(f"{name}: {'cancelled' if name in ended else 'already finished'}")
