"""Test jobs over a real OpenSSH server: lost connections, GPU locks, resuming and canceling."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from network import Network
from servers import Sshd, await_true, children
from tiny import CLI, Project, expected, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pair(
    new_project: Callable[[Path], Project], on_box: Callable[..., Project], tmp_path_factory: pytest.TempPathFactory
) -> Project:
    """Run two experiments that share one GPU, and fetch the results."""
    home = tmp_path_factory.mktemp("pair")
    project = on_box(new_project(home), TINY_TRACE=str(home / "trace"), TINY_SECONDS="0.3")
    project.leaf("submit", "-S", "seed=1,2")
    project.leaf("fetch", "--wait", "--every", "0.2")
    return project


def test_sweep_returns_experiments(pair: Project) -> None:
    assert set(pair.experiments()) == {"seed-1", "seed-2"}


def test_results_equal_a_local_run(pair: Project) -> None:
    assert json.loads(pair.file("seed-2", "metrics.json")) == expected(seed=2)


def test_dvc_exp_show_lists_them(pair: Project) -> None:
    shown = run("dvc", "exp", "show", "--csv", cwd=pair.path)
    assert "seed-1" in shown
    assert str(expected(seed=1)["accuracy"])[:8] in shown


def test_model_arrives_through_the_dvc_remote(pair: Project) -> None:
    revision = pair.experiments()["seed-1"]
    run("dvc", "get", "-q", ".", "model.txt", "--rev", revision, "-o", "../got.txt", cwd=pair.path)
    assert len((pair.path.parent / "got.txt").read_text()) == 64


def test_experiments_on_one_gpu_run_in_sequence(pair: Project) -> None:
    times = sorted(tuple(map(float, line.split())) for line in (pair.path.parent / "trace").read_text().splitlines())
    assert len(times) == 2
    assert times[0][1] <= times[1][0]


def test_experiment_sees_only_its_gpu(pair: Project) -> None:
    assert "device 0" in pair.leaf("logs", "-f", "seed-2")


def test_temporary_clone_is_removed(pair: Project) -> None:
    assert not list(pair.target.rglob("clone"))


def test_existing_name_is_rejected(pair: Project) -> None:
    assert "seed-1: an experiment on this commit already has this name" in pair.leaf("submit", "-S", "seed=1", status=2)


def test_exp_apply_restores_the_model(pair: Project) -> None:
    assert not (pair.path / "model.txt").exists()
    pair.leaf("fetch", "seed-2", "--models")
    run("dvc", "exp", "apply", "seed-2", cwd=pair.path)
    try:
        assert len((pair.path / "model.txt").read_text()) == 64
    finally:
        pair.git("checkout", "-q", ".")


def devices(project: Project, on_box: Callable[..., Project], *seen: str) -> None:
    """Replace Keras on the target with a stub that lists these devices, because importing Keras is slow."""
    folder = project.path.parent / "modules"
    (folder / "keras").mkdir(parents=True)
    (folder / "keras" / "__init__.py").write_text(
        f"class backend: backend = staticmethod(lambda: 'jax')\n"
        f"class distribution: list_devices = staticmethod(lambda: {list(seen)})\n"
    )
    on_box(project, PYTHONPATH=str(folder))


def test_doctor_passes_on_a_working_target(project: Project, on_box: Callable[..., Project]) -> None:
    devices(project, on_box, "gpu:0")
    links = [line.split()[0] for line in project.leaf("doctor").splitlines()]
    assert links == ["ok"] * 12


def test_doctor_reports_broken_links(project: Project, on_box: Callable[..., Project]) -> None:
    devices(project, on_box, "cpu:0")
    (project.path / "train.py").write_text("changed")
    project.git("remote", "set-url", "origin", "/nosuch.git")
    broken = [line for line in project.leaf("doctor", status=1).splitlines() if line.startswith("FIX")]
    assert [line.split()[1] for line in broken] == ["commit", "git", "target", "GPU"]


def test_doctor_reports_an_unreachable_machine(project: Project, on_box: Callable[..., Project], sshd: Sshd) -> None:
    on_box(project)
    sshd.stop()
    try:
        assert "FIX   connection      box: cannot be reached" in project.leaf("doctor", status=1)
    finally:
        sshd.start()


def test_job_outlives_the_connection_and_fetch_waits(
    project: Project, on_box: Callable[..., Project], sshd: Sshd
) -> None:
    on_box(project, TINY_SECONDS="1")
    project.leaf("submit", "--name", "cut")
    sshd.stop()
    try:
        command = [sys.executable, "-c", CLI, "fetch", "--wait", "--every", "0.3"]
        with subprocess.Popen(command, cwd=project.path, stdout=subprocess.PIPE, text=True) as fetching:
            assert fetching.stdout is not None
            assert "cannot be reached" in fetching.stdout.readline()
            sshd.start()
            assert fetching.stdout.readline() == "cut: done\n"
    finally:
        if sshd.process is None:
            sshd.start()
    assert set(project.experiments()) == {"cut"}


@pytest.mark.root
def test_job_that_ends_during_a_network_outage_is_fetched_later(
    project: Project, on_box: Callable[..., Project], far_sshd: tuple[Sshd, Network]
) -> None:
    server, network = far_sshd
    on_box(project, server, TINY_SECONDS="0.5")
    project.leaf("submit", "--name", "far")
    network.pull()
    command = [sys.executable, "-c", CLI, "fetch", "--wait", "--every", "0.3"]
    with subprocess.Popen(command, cwd=project.path, stdout=subprocess.PIPE, text=True) as fetching:
        assert fetching.stdout is not None
        assert "box: cannot be reached" in fetching.stdout.readline()
        await_true(lambda: list(project.target.glob("jobs/*/0/exit")) != [], 120)
        assert project.experiments() == {}
        network.plug()
        assert fetching.stdout.readline() == "far: done\n"
    assert json.loads(project.file("far", "metrics.json")) == expected(seed=42)


def test_changed_host_key_is_rejected(
    project: Project, on_box: Callable[..., Project], sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_box(project)
    known = sshd.folder / "known_hosts"
    before = known.read_text()
    other = (sshd.folder / "user.pub").read_text().split()
    known.write_text(f"[127.0.0.1]:{sshd.port} {other[0]} {other[1]}\n")
    try:
        said = project.leaf("submit", status=2)
    finally:
        known.write_text(before)
    assert "box: its host key is unknown or has changed" in said
    assert not project.target.exists()
    assert "no jobs" in project.leaf("jobs")


def test_unknown_host_key_is_rejected_even_if_ssh_accepts_any(
    project: Project, on_box: Callable[..., Project], sshd: Sshd
) -> None:
    on_box(project)
    before = sshd.config.read_text()
    sshd.config.write_text(
        before.replace(str(sshd.folder / "known_hosts"), "/dev/null") + "  StrictHostKeyChecking no\n"
    )
    try:
        said = project.leaf("submit", status=2)
    finally:
        sshd.config.write_text(before)
    assert "box: its host key is unknown" in said


def test_cancel_ends_the_process_group(project: Project, on_box: Callable[..., Project]) -> None:
    on_box(project, TINY_SECONDS="30")
    project.leaf("submit", "--name", "endless")
    await_true(lambda: project.said("starts at epoch 0"), 60)
    group = int(next(project.target.rglob("pid")).read_text())
    assert len(group_of(group)) >= 3  # task.py, dvc and the stage
    assert project.leaf("cancel", "endless") == "endless: cancelled\n"
    assert group_of(group) == []
    assert "cancelled" in project.leaf("fetch", status=1)


def test_job_stopped_by_sigterm_resumes_when_resubmitted(project: Project, on_box: Callable[..., Project]) -> None:
    on_box(project, TINY_SECONDS="1.5")
    project.leaf("submit", "-S", "seed=7")
    await_true(lambda: project.said("starts at epoch 0"), 60)
    os.kill(int(next(project.target.rglob("pid")).read_text()), 15)
    assert "stopped: stopped by SIGTERM" in project.leaf("fetch", "--wait", "--every", "0.3", status=1)
    project.leaf("submit", "-S", "seed=7")
    project.leaf("fetch", "seed-7", "--wait", "--every", "0.3")
    assert "resumes at epoch" in project.leaf("logs", "seed-7")
    assert json.loads(project.file("seed-7", "metrics.json")) == expected(seed=7)


def test_killed_job_is_lost(project: Project, on_box: Callable[..., Project]) -> None:
    on_box(project, TINY_SECONDS="30")
    project.leaf("submit", "--name", "killed")
    await_true(lambda: any(path.read_text() for path in project.target.rglob("pid")))
    os.killpg(int(next(project.target.rglob("pid")).read_text()), 9)
    await_true(lambda: "lost" in project.leaf("jobs"))


def test_children_of_a_killed_task_end_and_leave_no_clone(project: Project, on_box: Callable[..., Project]) -> None:
    on_box(project, TINY_SECONDS="1")
    project.leaf("submit", "-S", "seed=3", "-S", "epochs=90")
    await_true(lambda: project.said("starts at epoch 0"), 60)
    group = int(next(project.target.rglob("pid")).read_text())
    os.kill(group, 9)
    await_true(lambda: group_of(group) == [], 60)
    await_true(lambda: " lost " in project.leaf("jobs"), 60)
    assert not list(project.target.rglob("clone"))
    assert list(project.target.glob("state/*"))  # the stage wrote its checkpoint on SIGTERM


def test_children_that_outlive_the_watchdog_count_as_running_and_can_be_canceled(
    project: Project, on_box: Callable[..., Project]
) -> None:
    on_box(project, TINY_SECONDS="60")
    project.leaf("submit", "--name", "orphaned")
    await_true(lambda: project.said("starts at epoch 0"), 60)
    group = int(next(project.target.rglob("pid")).read_text())
    for pid in [*(one for one in children(group) if one not in group_of(group)), group]:  # kill the watchdog first
        os.kill(pid, 9)
    await_true(lambda: group not in group_of(group))
    assert " running " in project.leaf("jobs")
    assert project.leaf("cancel", "orphaned") == "orphaned: cancelled\n"
    assert group_of(group) == []
    assert not list(project.target.rglob("clone"))


HOSTILE = r"""$(touch pwned); ${oc.env:HOME} `touch pwned` ' \" & touch pwned #
 !!python/object/apply:os.system [touch pwned]"""


def test_hostile_value_arrives_as_text(project: Project, on_box: Callable[..., Project]) -> None:
    on_box(project)
    project.leaf("submit", "--name", "hostile", "-S", f"ignore={json.dumps([HOSTILE])}")
    project.leaf("fetch", "--wait", "--every", "0.3")
    arrived = yaml.safe_load(project.file("hostile", "params.yaml"))["ignore"]
    assert arrived == [HOSTILE]
    assert not list(project.path.parent.rglob("pwned"))


def test_hostile_folder_and_environment_are_data(
    project: Project, on_box: Callable[..., Project], tmp_path: Path
) -> None:
    on_box(project)
    config = json.loads((project.path / "runner.yaml").read_text())
    folder = f"{tmp_path}/a b'; touch pwned; $(touch pwned) %a"
    config["targets"]["box"] |= {"folder": folder, "environment": {"X": "$(touch pwned)"}}
    project.commit(**{"runner.yaml": json.dumps(config)})
    project.leaf("submit", "--name", "odd")
    project.leaf("fetch", "--wait", "--every", "0.3")
    assert set(project.experiments()) == {"odd"}
    assert not list(project.path.parent.rglob("pwned"))


def group_of(group: int) -> list[int]:
    """Return the IDs of the processes in a group, except zombies."""
    listed = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, number = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(number) == group and state != "Z":
            listed.append(int(stat.parent.name))
    return listed
