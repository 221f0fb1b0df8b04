"""Run the stage train in processes of its own, kill them at random moments, and write down what came of it.

Run by test_resume.py as `python killed_trainings.py PROJECT_FOLDER SEED`. TensorFlow takes long to import, so it is
imported once, before any of its threads exist, and each training is a fork.
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

KILLS, EPOCHS, BATCH, TRAIN = 10, 22, 8, 32
STEPS = TRAIN // BATCH


def make_project(folder: Path, pipeline: Path) -> None:
    """The outputs of the stages before train, tiny, and parameters that use every kind of randomness and state."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 48)
    images = draw.integers(0, 200, (48, 16, 16, 3)).astype(np.uint8)
    images[labels == 1, :, :, 0] += 30
    for name in ("ingested", "cleaned", "split", "balanced"):
        (folder / "data" / name).mkdir(parents=True)
    np.save(folder / "data/ingested/images.npy", images)
    classes = {"label": [0, 1], "name": ["healthy", "unhealthy"], "images": np.bincount(labels)}
    pd.DataFrame(classes).to_csv(folder / "data/ingested/classes.csv", index=False)
    pd.DataFrame({"image": range(48), "label": labels}).to_csv(folder / "data/cleaned/decisions.csv", index=False)
    split = ["train"] * TRAIN + ["validation"] * 16
    pd.DataFrame({"image": range(48), "split": split}).to_csv(folder / "data/split/splits.csv", index=False)
    np.save(folder / "data/balanced/images.npy", images[:0])
    pd.DataFrame({"image": [], "label": []}).to_csv(folder / "data/balanced/index.csv", index=False)
    rate = {"base": 1e-4, "max": 1e-2, "step_epochs": 3}
    masks = np.zeros((48, 16, 16), bool)
    masks[:24, 4:12, 4:12] = True  # of the others GrabCut makes a guess
    np.save(folder / "data/ingested/masks.npy", masks)
    changes = {"flip": "both", "background": "swap", "mixup": 0.2}
    values = {"image_size": 16, "backbone": "cnn_small", "epochs": EPOCHS, "patience": 99, "batch_size": BATCH}
    values |= {"micro_batch": 4, "weight_averaging": 0.9, "frozen_epochs": 2, "optimizer": "adamw"}
    values |= {"balance": "none", "weight_decay": 0.01, "learning_rate": rate, "augmentation": changes}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    shutil.copy(pipeline, folder / "dvc.yaml")


class Training:
    """The stage train in a forked process that tells of each update by one byte."""

    def __init__(self, project: Path, state: Path) -> None:
        shutil.rmtree(project / "models", ignore_errors=True)  # as DVC does before it runs a stage
        self.log = state.parent / f"{state.name}.log"
        self.told, tell = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            self._train(project, state, tell)
        os.close(tell)

    def _train(self, project: Path, state: Path, tell: int) -> None:
        from leaf.train import trainer
        from stages import train

        log = os.open(self.log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(project)
        os.environ["LEAF_STATE"] = str(state)
        step = trainer.train_step

        def telling(*arguments):
            os.write(tell, b".")
            return step(*arguments)

        trainer.train_step = telling
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
        """Return when so many updates have begun, or the training has ended."""
        while updates > 0 and (told := os.read(self.told, updates)):
            updates -= len(told)

    def end(self, number: int | None = None) -> int:
        """Send signal `number`, wait for the end: exit status, or minus the signal that ended it."""
        if number is not None:
            os.kill(self.process, number)
        status = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        os.close(self.told)
        return status


def outputs(project: Path) -> dict[str, str]:
    """Every output file by its name, in hex (model.keras is small here)."""
    files = sorted(path for path in (project / "models").rglob("*") if path.is_file())
    return {path.relative_to(project).as_posix(): path.read_bytes().hex() for path in files}


def kept(state: Path) -> list[str]:
    """Kinds of files in the state folder."""
    return sorted(path.suffix for path in (state / "training").iterdir())


def main(folder: Path, seed: int, pipeline: Path) -> None:
    import keras  # noqa: F401

    from stages import train  # noqa: F401

    project, draw = folder / "project", random.Random(seed)
    make_project(project, pipeline)
    found: dict = {"seed": seed}
    assert Training(project, folder / "whole").end() == 0, (folder / "whole.log").read_text()
    found["whole"] = outputs(project)

    state = folder / "killed"
    found["statuses"] = []
    for number in range(KILLS):
        training = Training(project, state)
        # The first dies in its first epoch; all others at any moment of the next two, the second not before a state is
        # there: it is written while the next epoch runs, and these epochs are shorter than a busy disk's answer.
        training.wait_for(draw.randrange(0, STEPS) if number == 0 else draw.randrange(1, 2 * STEPS + 1))
        while number == 1 and not list(state.glob("training/[!.]*.npz")):  # a dot: half-written
            training.wait_for(1)
        time.sleep(draw.uniform(0, 0.1))
        found["statuses"].append(training.end(signal.SIGKILL))

    training = Training(project, state)
    training.wait_for(1)
    asked = time.monotonic()
    found["stopped_status"] = training.end(signal.SIGTERM)
    found["stopped_seconds"] = time.monotonic() - asked
    found["stopped_state"] = kept(state)
    found["last_status"] = Training(project, state).end()
    found["killed"] = outputs(project)
    found["last_state"] = kept(state)
    found["log"] = (folder / "killed.log").read_text()
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
