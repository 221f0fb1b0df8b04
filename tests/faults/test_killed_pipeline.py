"""If training or `dvc repro` itself is killed, running the command again produces byte-identical outputs."""

import os
import re
import signal
import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MOST = 120  # maximum number of seconds per wait

OUTPUTS = ["models/model.keras", "models/history.csv", "models/run.json", "data/scored/predictions.csv"]
OUTPUTS += ["metrics/train.json", "metrics/evaluate.json"]
LONGER = {"backbone": "cnn_small", "epochs": 15, "patience": 99}  # long enough to be killed in the middle


@pytest.fixture(scope="module")
def fresh(project, tmp_path_factory):
    """Return a function that copies the small run and lengthens its training; each copy has its own checkpoints."""

    def make(name):
        made = project.copy(tmp_path_factory.mktemp(name) / "project")
        made.set(**LONGER)
        made.commit("a longer training run")
        return made

    return make


@pytest.fixture(scope="module")
def whole(fresh):
    """Return the outputs of an uninterrupted run."""
    made = fresh("whole")
    made.run("dvc", "repro", "evaluate")
    return outputs(made)


def outputs(made):
    return {name: (made.folder / name).read_bytes() for name in OUTPUTS}


def begin(made, command):
    """Start `command` and wait for two checkpoints; return its process and the process ID of training."""
    log = (made.folder.parent / "log").open("w")
    process = made.start(*command, stdout=log, stderr=log)
    states = made.folder.parent / "cache/leaf/training"
    first, until = None, time.monotonic() + MOST
    while process.poll() is None and time.monotonic() < until:
        for state in states.glob("[!.]*.npz"):  # partial files start with a dot
            first = first or state.stat().st_mtime_ns
            if state.stat().st_mtime_ns > first:
                return process, int(state.with_suffix(".pid").read_text())
        time.sleep(0.005)
    process.kill()
    pytest.fail("fewer than two checkpoints were written\n" + (made.folder.parent / "log").read_text()[-4000:])


def resumed_after(said):
    return [int(epoch) for epoch in re.findall(r"training: resuming after epoch (\d+) of 15", said)]


def test_repro_after_killed_training_is_byte_identical(fresh, whole):
    made = fresh("repro")
    process, training = begin(made, ["dvc", "repro", "evaluate"])
    os.kill(training, signal.SIGKILL)
    assert process.wait(MOST) == 255
    assert not (made.folder / "models/model.keras").exists()
    again = made.run("dvc", "repro", "evaluate")
    assert resumed_after(again.stdout + again.stderr)[0] >= 2
    assert outputs(made) == whole
    assert not list((made.folder.parent / "cache/leaf/training").glob("*.npz"))


def test_exp_run_temp_after_killed_training_is_byte_identical(fresh, whole):
    made = fresh("temp")
    command = ["dvc", "exp", "run", "--temp", "--name", "killed", "evaluate"]
    process, training = begin(made, command)
    os.kill(training, signal.SIGKILL)
    assert process.wait(MOST) != 0
    again = made.run(*command)
    assert resumed_after(again.stdout + again.stderr)[0] >= 2
    made.run("dvc", "exp", "apply", "killed")
    assert outputs(made) == whole


def test_repro_after_killed_dvc_waits_for_the_orphaned_process(fresh, whole):
    made = fresh("orphan")
    process, training = begin(made, ["dvc", "repro", "evaluate"])
    process.kill()
    process.wait(MOST)
    os.kill(training, signal.SIGSTOP)  # the orphan must not end before the next run starts
    log = made.folder.parent / "again"
    with log.open("w") as out:
        again = made.start("dvc", "repro", "evaluate", stdout=out, stderr=out)
    waiting, until = f"waiting for process {training},", time.monotonic() + MOST
    try:
        while waiting not in log.read_text() and again.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        os.kill(training, signal.SIGCONT)
        assert again.wait(MOST) == 0, log.read_text()[-4000:]
    finally:
        again.kill()
    assert waiting in log.read_text()
    assert outputs(made) == whole
