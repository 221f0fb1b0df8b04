"""Test arrays, requeues, node failures and killed agents on a real Slurm cluster with two nodes."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from cluster import NODES, Cluster
from servers import await_true, children
from tiny import Project, expected, run

pytestmark = [pytest.mark.slow, pytest.mark.root]


def on_slurm(project: Project, environment: dict[str, str] | None = None, **keys: object) -> Project:
    """Commit a runner.yaml whose target `slurm` is the cluster."""
    target = {
        "engine": "slurm",
        "folder": str(project.target),
        "python": sys.executable,
        "path": [str(Path(sys.executable).parent)],
        "environment": environment or {},
        **keys,
    }
    project.commit(**{"runner.yaml": json.dumps({"targets": {"slurm": target}})})
    return project


@pytest.fixture(scope="module")
def array(
    cluster: Cluster, new_project: Callable[[Path], Project], tmp_path_factory: pytest.TempPathFactory
) -> Project:
    """Run a sweep of two seeds over two rows, four experiments in one array, and fetch the results."""
    project = on_slurm(new_project(tmp_path_factory.mktemp("array")), {"TINY_SECONDS": "0.5"})
    project.leaf("submit", "wider", "longer", "-S", "seed=1,2")
    project.leaf("fetch", "--wait", "--every", "0.5")
    return project


NAMES = {"wider-seed-1", "wider-seed-2", "longer-seed-1", "longer-seed-2"}


def test_array_returns_every_experiment(array: Project) -> None:
    assert set(array.experiments()) == NAMES


def test_results_equal_a_local_run(array: Project) -> None:
    assert json.loads(array.file("longer-seed-2", "metrics.json")) == expected(seed=2, epochs=4)


def test_one_array_uses_both_nodes(array: Project) -> None:
    assert len(list(array.target.glob("jobs/*"))) == 1
    logs = [next(array.target.glob(f"jobs/*/{index}/log")).read_text() for index in range(4)]
    assert {log.splitlines()[0].rpartition(" on ")[2] for log in logs} == set(NODES)


def test_dvc_exp_show_lists_them(array: Project) -> None:
    shown = run("dvc", "exp", "show", "--csv", cwd=array.path)
    assert all(name in shown for name in NAMES)


@pytest.mark.full
def test_requeue_at_the_time_limit_is_bit_identical(cluster: Cluster, project: Project) -> None:
    on_slurm(project, {"TINY_SECONDS": "9"}, time_limit=1, signal_before=35)
    project.leaf("submit", "-S", "seed=3,6")  # the last element has the job ID of the array
    project.leaf("fetch", "--wait", "--every", "1")
    for log in project.target.glob("jobs/*/*/log"):
        assert "requeued, 1" in log.read_text()
        assert "resumes at epoch" in log.read_text()
    ends = [json.loads(project.file(f"seed-{seed}", "metrics.json")) for seed in (3, 6)]
    assert ends == [expected(seed=3), expected(seed=6)]


def test_node_failure_loses_nothing(cluster: Cluster, project: Project) -> None:
    on_slurm(project, {"TINY_SECONDS": "4"})
    project.leaf("submit", "-S", "seed=4,5")
    await_true(lambda: project.said("starts at epoch 0") and len(list(project.target.glob("state/*"))) > 0, 60)
    cluster.power_off("n1")
    try:
        cluster.ask("scontrol", "update", "nodename=n1", "state=down", "reason=power")
        project.leaf("fetch", "--wait", "--every", "1")
    finally:
        cluster.start_node("n1")
        cluster.ask("scontrol", "update", "nodename=n1", "state=resume")
    assert set(project.experiments()) == {"seed-4", "seed-5"}
    assert json.loads(project.file("seed-4", "metrics.json")) == expected(seed=4)


def test_killed_agent_leaves_no_process_or_clone_and_frees_its_name(cluster: Cluster, project: Project) -> None:
    on_slurm(project, {"TINY_SECONDS": "60"})
    project.leaf("submit", "--name", "killed")
    await_true(lambda: project.said("starts at epoch 0"), 180)
    pid = int(next(project.target.glob("jobs/*/0/pid")).read_text())
    started = [pid, *children(pid)]
    assert len(started) >= 3  # task.py, dvc and the stage
    os.kill(pid, signal.SIGKILL)
    await_true(lambda: " lost " in project.leaf("jobs"), 180)
    await_true(lambda: not any(Path(f"/proc/{one}").exists() for one in started), 180)
    assert not list(project.target.rglob("clone"))
    on_slurm(project, {"TINY_SECONDS": "0"})
    project.leaf("submit", "--name", "killed")
    project.leaf("fetch", "--wait", "--every", "0.5", "killed")
    assert set(project.experiments()) == {"killed"}


SLEEPER = """
    import os, signal, sys, time
    from pathlib import Path

    own = Path(os.environ["SLURM_PROCID"])

    def leave(*_):
        own.write_text(f"{os.environ['SLURMD_NODENAME']} of {os.environ['KERAS_DISTRIBUTION_NUM_PROCESSES']}")
        sys.exit(143)

    signal.signal(signal.SIGTERM, leave)
    own.write_text("ready")
    time.sleep(300)
"""
SPREAD = (
    "from leaf.train.distribution import run_on_all_nodes as spread; raise SystemExit(spread('{}', 'data_parallel'))"
)


def test_signal_reaches_the_stage_on_both_nodes(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(dedent(SLEEPER))
    script = tmp_path / "script"
    script.write_text(f'#!/bin/sh\nKERAS_BACKEND=jax exec {sys.executable} -c "{SPREAD.format("sleeper")}"\n')
    options = ["--parsable", "--array=0", "--nodes=2", "--ntasks-per-node=1", f"--chdir={tmp_path}"]
    path = f"PYTHONPATH={tmp_path}:{Path(__file__).parents[2]}"
    job = cluster.ask("sbatch", *options, f"--export=ALL,{path}", str(script)).strip()
    said = [tmp_path / "0", tmp_path / "1"]
    await_true(lambda: all(one.exists() and one.read_text() == "ready" for one in said), 120)
    cluster.ask("scancel", "--batch", "--signal=TERM", f"{job}_0")  # as Slurm does before the time limit
    await_true(lambda: cluster.ask("squeue", "-h") == "", 60)
    assert [one.read_text() for one in said] == [f"{name} of 2" for name in NODES]


def test_cancel_ends_running_and_queued_experiments(cluster: Cluster, project: Project) -> None:
    on_slurm(project, {"TINY_SECONDS": "60"}, parallel=1)
    project.leaf("submit", "-S", "seed=1,2")
    await_true(lambda: project.said("starts at epoch 0"), 60)
    assert [line.split()[3] for line in project.leaf("jobs").splitlines()[1:]] == ["running", "queued"]
    project.leaf("cancel", "seed-1", "seed-2")
    await_true(lambda: cluster.ask("squeue", "-h") == "", 30)

    def states() -> list[str]:
        return [line.split()[3] for line in project.leaf("jobs").splitlines()[1:]]

    # the state is `running` until the last process has ended
    await_true(lambda: states() == ["cancelled", "cancelled"], 120)


def test_option_rejected_by_slurm_raises_a_one_line_error(cluster: Cluster, project: Project) -> None:
    on_slurm(project, partition="nosuch")
    said = project.leaf("submit", status=2)
    assert "sbatch: error:" in said
    assert "invalid partition" in said.lower()
    assert not list(project.target.glob("jobs/*"))
