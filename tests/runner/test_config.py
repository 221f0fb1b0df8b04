"""Errors in runner.yaml name the key and the valid values in one line."""

from pathlib import Path

import pytest

from leaf.errors import LeafError
from leaf.runner.config import Local, check_target, read_target, read_targets

BOX = {"engine": "ssh", "host": "box"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"engine": "ray"}, "targets.x.engine: 'ray'; valid: local, ssh, slurm, skypilot"),
        ({}, "targets.x.engine: None; valid: local, ssh"),
        ({"engine": "ssh"}, "targets.x.host: missing; valid: a name in your ssh configuration"),
        ({**BOX, "gpu": [0]}, "targets.x.gpu: unknown key for engine ssh; valid: engine, "),
        ({**BOX, "gpus": "0"}, "targets.x.gpus: '0'; valid: a list of GPU indices"),
        ({**BOX, "gpus": [-1]}, "targets.x.gpus: -1; valid: a list of GPU indices"),
        (
            {**BOX, "gpus": [0, 1], "gpus_per_job": 3},
            "targets.x.gpus_per_job: 3; valid: 1 to 2",
        ),
        ({**BOX, "gpus": [], "gpus_per_job": 2}, "targets.x.gpus_per_job: 2; valid: 1,"),
        ({**BOX, "folder": "work"}, "targets.x.folder: 'work'; valid: a path on the target"),
        ({"engine": "slurm", "time_limit": 0}, "targets.x.time_limit: 0; valid: an integer ≥ 1 (minutes)"),
        ({"engine": "slurm", "nodes": 0}, "targets.x.nodes: 0; valid: an integer from 1 to 1024"),
        (
            {"engine": "skypilot", "accelerators": "L4:0"},
            "targets.x.accelerators: 'L4:0'; valid: a GPU in SkyPilot notation",
        ),
        ("box", "targets.x: 'box'; valid: a mapping with `engine`"),
    ],
)
def test_error_contains_the_key_and_valid_values(values: object, message: str) -> None:
    with pytest.raises(LeafError) as error:
        check_target("x", values)
    assert message in str(error.value)


@pytest.mark.parametrize("host", ["-oProxyCommand=touch x", "a b", "box;ls", "box\nls", "$(ls)", ""])
def test_host_that_looks_like_an_option_or_command_is_rejected(host: str) -> None:
    with pytest.raises(LeafError, match=r"targets\.x\.host"):
        check_target("x", {**BOX, "host": host})


@pytest.mark.parametrize(
    "name",
    ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "DB_PASSWORD", "api_key", "GH_PAT", "WANDB_KEY", "PGPASS", "SSH_KEY", "PW2"],
)
def test_variable_named_like_a_secret_is_rejected(name: str) -> None:
    with pytest.raises(LeafError, match=f"environment: {name} .*secret"):
        check_target("x", {**BOX, "environment": {name: "x"}})


@pytest.mark.parametrize("name", ["KERAS_BACKEND", "PATH", "XDG_CACHE_HOME", "KEYBOARD", "COMPASS", "OMP_NUM_THREADS"])
def test_ordinary_variable_is_accepted(name: str) -> None:
    assert check_target("x", {**BOX, "environment": {name: "/a/b"}}).environment == {name: "/a/b"}


BOMB = (
    "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
    + "targets: {x: *a8}\n"
)
SECRETS = [
    "https://person:hunter2@example.org/leaf.git",
    "https://x-access@example.org/leaf.git",
    "ssh://person:hunter2@example.org/leaf.git",
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "a" * 30,
    "AKIA" + "ABCD" * 4,
    "hf_" + "a" * 30,
    "npm_" + "a1" * 18,
    "ghr_" + "a1B2" * 9,
    "dckr_pat_" + "a" * 27,
    "sk_live_" + "a" * 24,
    "pypi-" + "a" * 40,
    "https://hooks.slack.com/" + "services/T0/B0/x",
    "export WANDB_API_KEY=" + "0123abcd",
    "mysql --password=" + "hunter2",
    "DB_PASSWORD: " + "hunter2",
    "tool --token " + "abcdef012345",
    "curl -H 'Authorization: Bearer " + "abcdef0123456789'",
    "curl -u person:" + "hunter2 example.org",
    "aws configure set aws_secret_access_key " + "wJalrXUtnFEMI",
    "DB_PASSWORD=${DB_PASSWORD:-" + "hunter2}",
    "AccountKey=" + "abcdefgh==",
    "wandb login " + "0123456789abcdef" * 2,
    "nvapi-" + "a" * 30,
    "-----BEGIN " + "OPENSSH PRIVATE KEY-----",
]


@pytest.mark.parametrize("text", SECRETS)
@pytest.mark.parametrize("key", ["origin", "setup", "python"])
def test_secret_is_rejected_in_any_key_and_not_printed(key: str, text: str) -> None:
    with pytest.raises(LeafError, match=f"{key}: .*secret") as error:
        check_target("x", {**BOX, key: text})
    assert text not in str(error.value)


@pytest.mark.parametrize(
    "script",
    [
        'python3 -m venv "$LEAF_ENVIRONMENT"\n"$LEAF_ENVIRONMENT/bin/pip" install -r requirements-gpu.txt',
        "export WANDB_API_KEY=$(cat ~/.wandb)",
        "export HF_TOKEN=$TOKEN",
        "module load cuda; export KERAS_BACKEND=jax",
        "export SSH_KEY=/home/me/.ssh/id",
        "docker login --password-stdin registry.example.org < ~/.registry",
        "tool --token $TOKEN --token-file ~/.token --password -v",
        "git checkout 0123456789abcdef0123456789abcdef01234567",
        "id -u && pip install --user dvc -u",
    ],
)
def test_setup_that_reads_secrets_on_the_target_is_accepted(script: str) -> None:
    assert check_target("x", {**BOX, "setup": script}).setup == script


def test_address_without_a_secret_is_accepted() -> None:
    for address in ("git@example.org:leaf.git", "ssh://git@example.org:2222/leaf.git", "https://example.org/leaf.git"):
        check_target("x", {**BOX, "origin": address})


@pytest.mark.parametrize(
    "text",
    [
        "- a",
        "targets: {x: {engine: local}}\ndefault: [1]",
        "targets: {x: {engine: [1]}}",
        "targets: {x: [[1]]}",
        BOMB,
        "targets: {}",
        "targets: [",
        "{}",
        "targets: {x: {engine: local}}\ndefault: y",
    ],
)
def test_damaged_file_raises_a_one_line_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "runner.yaml"
    path.write_text(text)
    with pytest.raises(LeafError, match=r"runner\.yaml"):
        read_targets(path)


def test_default_target_without_a_file_is_local(tmp_path: Path) -> None:
    assert read_target(None, tmp_path / "runner.yaml") == ("local", Local(engine="local"))


def test_error_for_an_unknown_target_lists_valid_targets(tmp_path: Path) -> None:
    with pytest.raises(LeafError, match=r"targets\.gpu: .*valid: local"):
        read_target("gpu", tmp_path / "runner.yaml")


def test_runner_yaml_is_valid() -> None:
    default, targets = read_targets(Path(__file__).parents[2] / "runner.yaml")
    assert default == "local"
    assert {target.engine for target in targets.values()} == {"local", "ssh", "slurm", "skypilot"}
