"""Run the `train` stage in forked processes, kill them at random moments, and record the results as JSON.

test_resume.py runs it as `python killed_runs.py FOLDER SEED`. TensorFlow is slow to import, so this process
imports it once and forks before TensorFlow starts any threads. Each fork is a training run.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

PIPELINE = Path(__file__).parents[2] / "dvc.yaml"
KILLS, EPOCHS, BATCH, TRAIN = 10, 22, 8, 32
STEPS = TRAIN // BATCH


def write_inputs(folder: Path, train: int, validation: int, synthetic: int = 0, side: int = 16) -> None:
    """Write tiny outputs of the stages before `train`, and dvc.yaml."""
    draw = np.random.default_rng(0)
    count = train + validation
    labels = draw.integers(0, 2, count)
    images = draw.integers(0, 200, (count, side, side, 3)).astype(np.uint8)
    images[labels == 1, :, :, 0] += 30
    split = ["train"] * train + ["validation"] * validation
    tables = {
        "ingested/classes": {"label": [0, 1], "name": ["healthy", "unhealthy"], "images": np.bincount(labels)},
        "cleaned/decisions": {"image": range(count), "label": labels, "group": range(count)},
        "split/splits": {"image": range(count), "split": split},
        "balanced/index": {"image": range(synthetic), "label": labels[:synthetic], "parent": range(synthetic)},
    }
    for name, columns in tables.items():
        path = folder / f"data/{name}.csv"
        path.parent.mkdir(parents=True)
        pd.DataFrame(columns).to_csv(path, index=False)
    np.save(folder / "data/ingested/images.npy", images)
    np.save(folder / "data/balanced/images.npy", images[:synthetic] + 1)
    shutil.copy(PIPELINE, folder)


def make_project(folder: Path) -> None:
    """Write the inputs, with masks and parameters that use every kind of randomness and state."""
    write_inputs(folder, TRAIN, 16)
    masks = np.zeros((TRAIN + 16, 16, 16), bool)
    masks[:24, 4:12, 4:12] = True  # GrabCut estimates the other masks
    np.save(folder / "data/ingested/masks.npy", masks)
    rate = {"base": 1e-4, "max": 1e-2, "step_epochs": 3}
    changes = {"flip": "both", "background": "swap", "mixup": 0.2}
    values = {"image_size": 16, "backbone": "cnn_small", "epochs": EPOCHS, "patience": 99, "batch_size": BATCH}
    values |= {"micro_batch": 4, "weight_averaging": 0.9, "frozen_epochs": 2, "optimizer": "adamw"}
    values |= {"balance": "none", "weight_decay": 0.01, "learning_rate": rate, "augmentation": changes}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))


class Training:
    """The `train` stage in a forked process, which writes one byte to a pipe at each update."""

    def __init__(self, project: Path, state: Path) -> None:
        shutil.rmtree(project / "models", ignore_errors=True)  # as DVC does before it runs a stage
        self.log = state.parent / f"{state.name}.log"
        self.updates, report = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            self._train(project, state, report)
        os.close(report)

    def _train(self, project: Path, state: Path, report: int) -> None:
        from leaf.train import trainer
        from stages import train

        log = os.open(self.log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(project)
        os.environ["LEAF_STATE"] = str(state)
        step = trainer.train_step

        def reported_step(*arguments):
            os.write(report, b".")
            return step(*arguments)

        trainer.train_step = reported_step
        status = 70
        try:
            train.main()
            status = 0
        except SystemExit as error:
            status = error.code
        finally:
            if status == 70:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def wait_for(self, updates: int) -> None:
        """Wait until this number of updates has started or training has ended."""
        while updates > 0 and (started := os.read(self.updates, updates)):
            updates -= len(started)

    def end(self, number: int | None = None) -> int:
        """Send signal `number`, wait for the process, and return its exit status, or the negative signal number."""
        if number is not None:
            os.kill(self.process, number)
        status = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        os.close(self.updates)
        return status


def outputs(project: Path) -> dict[str, str]:
    """Return the content of each output file, in hex, by name."""
    files = sorted(path for path in (project / "models").rglob("*") if path.is_file())
    return {path.relative_to(project).as_posix(): path.read_bytes().hex() for path in files}


def suffixes(state: Path) -> list[str]:
    """Return the suffixes of the files in the checkpoint folder."""
    return sorted(path.suffix for path in (state / "training").iterdir())


def main(folder: Path, seed: int) -> None:
    import keras  # noqa: F401

    from stages import train  # noqa: F401

    project, draw = folder / "project", random.Random(seed)
    make_project(project)
    results: dict = {"seed": seed}
    assert Training(project, folder / "undisturbed").end() == 0, (folder / "undisturbed.log").read_text()
    results["undisturbed"] = outputs(project)

    state = folder / "killed"
    results["statuses"] = []
    for number in range(KILLS):
        training = Training(project, state)
        # Kill the first run in its first epoch and the others within two epochs. The second also waits until a
        # checkpoint exists, because on a busy disk, writing one may take longer than these short epochs.
        training.wait_for(draw.randrange(0, STEPS) if number == 0 else draw.randrange(1, 2 * STEPS + 1))
        while number == 1 and not list(state.glob("training/[!.]*.npz")):  # partial files start with a dot
            training.wait_for(1)
        time.sleep(draw.uniform(0, 0.1))
        results["statuses"].append(training.end(signal.SIGKILL))

    training = Training(project, state)
    training.wait_for(1)
    start = time.monotonic()
    results["stopped_status"] = training.end(signal.SIGTERM)
    results["stopped_seconds"] = time.monotonic() - start
    results["stopped_state"] = suffixes(state)
    results["last_status"] = Training(project, state).end()
    results["killed"] = outputs(project)
    results["last_state"] = suffixes(state)
    results["log"] = (folder / "killed.log").read_text()
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
