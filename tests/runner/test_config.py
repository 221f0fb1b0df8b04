"""runner.yaml: a mistake is one line that names the key and what is valid."""

from pathlib import Path

import pytest

from leaf.errors import LeafError
from leaf.runner.config import Local, check_target, read_target, read_targets

BOX = {"engine": "ssh", "host": "box"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"engine": "ray"}, "targets.x.engine: 'ray'; valid: local, ssh, slurm, skypilot"),
        ({}, "targets.x.engine: None; valid: local, ssh"),
        ({"engine": "ssh"}, "targets.x.host: missing; valid: a name of your ssh configuration"),
        ({**BOX, "gpu": [0]}, "targets.x.gpu: unknown key for engine ssh; valid: engine, "),
        ({**BOX, "gpus": "0"}, "targets.x.gpus: '0'; valid: a list of GPU numbers"),
        ({**BOX, "gpus": [-1]}, "targets.x.gpus: -1; valid: a list of GPU numbers"),
        (
            {**BOX, "gpus": [0, 1], "gpus_per_job": 3},
            "targets.x.gpus_per_job: 3; valid: 1 to 2, as many as",
        ),
        ({**BOX, "gpus": [], "gpus_per_job": 2}, "targets.x.gpus_per_job: 2; valid: 1 to 1"),
        ({**BOX, "folder": "work"}, "targets.x.folder: 'work'; valid: a folder on the target, absolute or from ~"),
        ({"engine": "slurm", "time_limit": 0}, "targets.x.time_limit: 0; valid: minutes, a whole number from 1"),
        ({"engine": "slurm", "nodes": 0}, "targets.x.nodes: 0; valid: a whole number from 1"),
        ({"engine": "skypilot", "accelerators": "L4:0"}, "targets.x.accelerators: 'L4:0'; valid: SkyPilot's notation"),
        ("box", "targets.x: 'box'; valid: a mapping with `engine`"),
    ],
)
def test_a_mistake_is_one_line_with_the_key_and_what_is_valid(values: object, said: str) -> None:
    with pytest.raises(LeafError) as error:
        check_target("x", values)
    assert said in str(error.value)


@pytest.mark.parametrize("host", ["-oProxyCommand=touch x", "a b", "box;ls", "box\nls", "$(ls)", ""])
def test_a_host_that_ssh_could_take_for_an_option_or_a_command_is_refused(host: str) -> None:
    with pytest.raises(LeafError, match=r"targets\.x\.host"):
        check_target("x", {**BOX, "host": host})


@pytest.mark.parametrize(
    "name",
    ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "DB_PASSWORD", "api_key", "GH_PAT", "WANDB_KEY", "PGPASS", "SSH_KEY", "PW2"],
)
def test_a_variable_named_like_a_secret_is_refused(name: str) -> None:
    with pytest.raises(LeafError, match=f"environment: {name} looks like a secret"):
        check_target("x", {**BOX, "environment": {name: "x"}})


@pytest.mark.parametrize("name", ["KERAS_BACKEND", "PATH", "XDG_CACHE_HOME", "KEYBOARD", "COMPASS", "OMP_NUM_THREADS"])
def test_an_ordinary_variable_is_taken(name: str) -> None:
    assert check_target("x", {**BOX, "environment": {name: "/a/b"}}).environment == {name: "/a/b"}


SECRETS = [
    "https://person:hunter2@example.org/leaf.git",
    "https://x-access@example.org/leaf.git",
    "ssh://person:hunter2@example.org/leaf.git",
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "a" * 30,
    "AKIA" + "ABCD" * 4,
    "hf_" + "a" * 30,
    "-----BEGIN " + "OPENSSH PRIVATE KEY-----",
]


@pytest.mark.parametrize("text", SECRETS)
@pytest.mark.parametrize("key", ["origin", "setup", "python"])
def test_a_secret_is_refused_wherever_it_stands_and_not_repeated(key: str, text: str) -> None:
    with pytest.raises(LeafError, match=f"{key}: its value looks like a secret") as error:
        check_target("x", {**BOX, key: text})
    assert text not in str(error.value)


def test_an_address_without_a_secret_is_taken() -> None:
    for address in ("git@example.org:leaf.git", "ssh://git@example.org:2222/leaf.git", "https://example.org/leaf.git"):
        check_target("x", {**BOX, "origin": address})


@pytest.mark.parametrize(
    "text", ["- a", "targets: {}", "targets: [", "{}", "targets: {x: {engine: local}}\ndefault: y"]
)
def test_a_broken_file_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "runner.yaml"
    path.write_text(text)
    with pytest.raises(LeafError, match=r"runner\.yaml"):
        read_targets(path)


def test_without_a_file_there_is_this_machine(tmp_path: Path) -> None:
    assert read_target(None, tmp_path / "runner.yaml") == ("local", Local(engine="local"))


def test_an_unknown_target_is_told_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(LeafError, match=r"targets\.gpu: no such target; valid: local"):
        read_target("gpu", tmp_path / "runner.yaml")


def test_the_committed_file_is_valid() -> None:
    default, targets = read_targets(Path(__file__).parents[2] / "runner.yaml")
    assert default == "local"
    assert {target.engine for target in targets.values()} == {"local", "ssh", "slurm", "skypilot"}
