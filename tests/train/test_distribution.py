"""`distribution: data_parallel` on JAX: the number of devices and processes does not change the result."""

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import backend

from leaf.errors import LeafError
from leaf.params import Params
from leaf.train.distribution import run_on_all_nodes, set_up_distribution

WORKER = Path(__file__).with_name("distributed_worker.py")
IMAGES, EPOCHS = 64, 3  # as in distributed_worker.py
TOLERANCE = 1e-5  # relative; measured 2e-7, because sums over a batch are computed in a different order


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the results of one process (`0`), a pair with two devices each (`1`, `2`) and one with eight (`3`)."""
    pytest.importorskip("jax")
    folder = tmp_path_factory.mktemp("distributed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    pair = {"KERAS_DISTRIBUTION_NUM_PROCESSES": "2", "KERAS_DISTRIBUTION_JOB_ADDRESSES": address}
    started = []
    two, eight = ({"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"} for count in (2, 8))
    pairs = [{**pair, **two, "KERAS_DISTRIBUTION_PROCESS_ID": str(i)} for i in (0, 1)]
    for number, added in enumerate([{"XLA_FLAGS": ""}, *pairs, eight]):
        environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", **added}
        command = [sys.executable, str(WORKER), str(folder / str(number))]
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    for process in started:
        stderr = process.communicate()[1]
        assert process.returncode == 0, stderr[-3000:]
    return {path.name: json.loads(path.read_text()) for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "averaged"])
def test_two_processes_and_eight_devices_match_the_curve_of_one_device(outcomes: dict[str, Any], name: str) -> None:
    single, *others = (np.array(outcomes[process]["curves"][name]) for process in "0123")
    assert single.shape == (EPOCHS, 4)
    for one in others:
        np.testing.assert_allclose(one, single, rtol=TOLERANCE)


@pytest.mark.slow
def test_two_processes_report_the_same_curve_with_augmentation(outcomes: dict[str, Any]) -> None:
    single, first, second, eight = (np.array(outcomes[process]["curves"]["changed"]) for process in "0123")
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(eight, single, rtol=TOLERANCE)
    assert (first != single).any()


@pytest.mark.slow
def test_each_process_reads_only_its_share(outcomes: dict[str, Any]) -> None:
    padded = 48  # 40 validation images in batches of 16
    assert [outcomes[name]["read"] for name in "03"] == [[IMAGES * EPOCHS, padded * EPOCHS]] * 2
    assert [outcomes[name]["read"] for name in "12"] == [[IMAGES * EPOCHS // 2, padded * EPOCHS // 2]] * 2


@pytest.mark.slow
def test_no_image_is_dropped_or_duplicated(outcomes: dict[str, Any]) -> None:
    first, second = (Counter(outcomes[name]["seen"]) for name in "12")
    assert sum(first.values()) == sum(second.values()) == IMAGES * EPOCHS // 2
    assert first + second == Counter(outcomes["0"]["seen"])
    assert set((first + second).values()) == {EPOCHS}
    assert len(first + second) == IMAGES


@pytest.mark.slow
def test_uneven_batch_is_rejected_by_one_process_in_one_line(outcomes: dict[str, Any]) -> None:
    refused = [outcomes[name]["refused"] for name in "012"]
    assert refused == ["", "batch_size: 15; valid: a multiple of 4, the number of devices", "2"]


@pytest.mark.slow
def test_training_on_jax_imports_no_other_backend(outcomes: dict[str, Any]) -> None:
    assert [outcomes[name]["imported"] for name in "0123"] == [[]] * 4


def test_backend_other_than_jax_is_rejected(recipe: Callable[..., Params]) -> None:
    if backend.backend() == "jax":
        pytest.skip("Keras runs on JAX")
    with pytest.raises(LeafError, match=r"distribution: .*JAX.*KERAS_BACKEND"):
        set_up_distribution(recipe(distribution="data_parallel"))


def test_several_nodes_without_data_parallel_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    with pytest.raises(LeafError, match=r"distribution: none.*data_parallel"):
        run_on_all_nodes("stages.train", "none")


def test_several_nodes_without_srun_are_rejected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For example, containers do not include `srun`."""
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LeafError, match=r"srun: not found.*`path`"):
        run_on_all_nodes("stages.train", "data_parallel")
