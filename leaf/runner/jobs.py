"""How jobs go, and their results brought back."""

import time
from collections.abc import Callable, Iterator

from leaf.errors import LeafError
from leaf.runner import repository
from leaf.runner.config import check_target
from leaf.runner.engines import State, engine_for
from leaf.runner.records import ENDED, Record, choose, read_records
from leaf.runner.transport import ConnectionLostError

Say = Callable[[str], None]


def states(record: Record) -> list[State]:
    """The state of each experiment of a job; one that has ended is not asked for again."""
    if not record.open:
        return [State(record.ended[one.name]) for one in record.experiments]
    engine = engine_for(check_target(record.target, record.settings))
    now = engine.states(record)
    return [
        State(record.ended.get(one.name, new.state), new.note) for one, new in zip(record.experiments, now, strict=True)
    ]


def listing(names: list[str]) -> list[str]:
    """A line for each experiment: job, target, experiment, state and what it does; a target out of reach says so."""
    rows = []
    for record, indices in choose(names):
        try:
            now = states(record)
        except LeafError as error:
            now = [State("unknown", str(error))] * len(record.experiments)
        for index in indices:
            rows.append([record.id, record.target, record.experiments[index].name, *now[index]])
    if not rows:
        return ["no jobs; `leaf submit` starts one"]
    rows.insert(0, ["JOB", "TARGET", "EXPERIMENT", "STATE", "NOTE"])
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        "  ".join([cell.ljust(width) for cell, width in zip(row, widths, strict=False)] + row[4:]).rstrip()
        for row in rows
    ]


def fetch(names: list[str], wait: bool, models: bool, every: float, say: Say) -> int:
    """Bring the results of ended experiments into this repository; with `wait` stay until all have ended.

    With `models` DVC's cache receives what they made, too. A lost connection is said once and waited out. Returns 0
    where every experiment asked for is done, else 1.
    """
    chosen = choose(names)
    silent = False
    while True:
        missing = 0
        for record, _ in chosen:
            try:
                _collect(record, say)
                silent = False
            except ConnectionLostError as error:
                if not wait:
                    raise
                if not silent:
                    say(f"{error}; the job goes on, waiting")
                silent = True
            missing += len(record.open)
        if not missing or not wait:
            break
        time.sleep(every)
    if models:
        _bring_outputs(chosen)
    outcomes = [record.ended.get(record.experiments[index].name) for record, indices in chosen for index in indices]
    if missing:
        say(f"{missing} not ended yet; `leaf fetch --wait` stays until they have")
    return 0 if all(outcome == "done" for outcome in outcomes) else 1


def _bring_outputs(chosen: list[tuple[Record, list[int]]]) -> None:
    for record, indices in chosen:
        target = check_target(record.target, record.settings)
        names = [record.experiments[index].name for index in indices]
        done = [repository.reference(record.revision, name) for name in names if record.ended.get(name) == "done"]
        if done and target.needs_remote:
            repository.bring_outputs(*repository.choose_data_remote(target.dvc_remote), done)


def _collect(record: Record, say: Say) -> None:
    """Take over how the open experiments ended, and fetch those that are done."""
    if not record.open:
        return
    before = set(record.open)
    now = states(record)
    done = [record.experiments[index].name for index in before if now[index].state == "done"]
    target = check_target(record.target, record.settings)
    if done and target.needs_remote:
        repository.bring(target.git_remote, record.revision, done)
    for index in sorted(before):
        if now[index].state in ENDED:
            name = record.experiments[index].name
            record.ended[name] = now[index].state
            say(f"{name}: {now[index].state}{': ' if now[index].note else ''}{now[index].note}")
    record.write()


def follow(name: str | None, on: bool, every: float) -> Iterator[str]:
    """The parts of an experiment's log, those to come too with `on`; the newest experiment where none is named."""
    if name is None:
        newest = read_records()[-1:]
        chosen = [(record, [0]) for record in newest]
    else:
        chosen = choose([name])
    for record, indices in chosen:
        engine = engine_for(check_target(record.target, record.settings))
        for index in indices:
            if len(indices) > 1:
                yield f"==> {record.experiments[index].name} <==\n"
            offset = 0
            while True:
                try:
                    ended = not on or engine.states(record)[index].state in ENDED  # asked before the last part is read
                    text, offset = engine.log(record, index, offset)
                except ConnectionLostError:
                    if not on:
                        raise
                    time.sleep(every)
                    continue
                yield text
                if ended and not text:
                    break
                if not text:
                    time.sleep(every)


def cancel(names: list[str], say: Say) -> None:
    """End the named jobs or experiments."""
    for record, indices in choose(names):
        engine = engine_for(check_target(record.target, record.settings))
        ended = engine.cancel(record, indices)
        for index in indices:
            say(f"{record.experiments[index].name}: {'cancelled' if index in ended else 'had ended already'}")
