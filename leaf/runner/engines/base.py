"""What every engine does."""

from typing import Any, NamedTuple, Protocol

from leaf.runner.records import Record


class State(NamedTuple):
    """An experiment's state, one of queued, running, unknown and those of `records.ENDED`, and a note on it."""

    state: str
    note: str = ""


class Engine(Protocol):
    """Takes a job to its target, tells how it goes there, and ends it. Every method may raise ConnectionLostError."""

    def submit(self, record: Record, job: dict[str, Any]) -> str:
        """Start the job; the answer says where it is."""
        ...

    def states(self, record: Record) -> list[State]:
        """The state of each experiment, in order."""
        ...

    def log(self, record: Record, index: int, offset: int) -> tuple[str, int]:
        """The log of an experiment from byte `offset`, and where the next part begins."""
        ...

    def cancel(self, record: Record, indices: list[int]) -> list[int]:
        """End the experiments with every process they started; the answer has those that had not ended."""
        ...

    def job(self) -> dict[str, Any]:
        """What the engine adds to job.json."""
        ...
