"""What lies beside a trained model: how it was made, and what evaluation decided for it."""

from dataclasses import dataclass
from pathlib import Path

from leaf.errors import LeafError
from leaf.store import read_json


@dataclass(frozen=True)
class Companions:
    """What belongs to a model file.

    Attributes:
        sha256: of the model file as `train` wrote it, in hex.
        classes: the two labels.
        threshold: the probability of the second class from which it is predicted.
        temperature: the logits are divided by it.
        views: how many views of an image were averaged when the model was judged.
        known: where the file lies that says what the model knows (`leaf.serving.known`).
    """

    sha256: str
    classes: tuple[str, ...]
    threshold: float
    temperature: float
    views: int
    known: Path


def companions(model: Path) -> Companions:
    """Read what belongs to `model`: `run.json` beside it; `decision.json` and `known.npz` beside it or in data/scored.

    Raises:
        LeafError: where the model or one of the files is missing, or a file lacks a key.
    """
    if not model.is_file():
        raise LeafError(f"{model}: no such file; run `dvc repro` first, or give another model")
    run_file, decision_file = model.with_name("run.json"), _find(model, "decision.json")
    run, decision = read_json(run_file), read_json(decision_file)
    try:
        return Companions(
            run["model_sha256"],
            tuple(run["classes"]),
            float(decision["threshold"]),
            float(decision["temperature"]),
            int(decision["views"]),
            _find(model, "known.npz"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LeafError(f"{run_file}, {decision_file}: not as `dvc repro` writes them ({error!r})") from None


def _find(model: Path, name: str) -> Path:
    beside = model.with_name(name)
    return beside if beside.is_file() else model.parent.parent / "data" / "scored" / name
