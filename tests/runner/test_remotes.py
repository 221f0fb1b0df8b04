"""DVC remotes over ssh and S3. DVC's own ssh client accepts any host key, so OpenSSH checks it first."""

import getpass
import json
import os
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bucket import Bucket
from servers import Sshd
from tiny import Project, expected, run

from leaf.errors import LeafError
from leaf.runner import repository
from leaf.runner.agent.task import host_key_refused


def use_ssh_remote(project: Project, sshd: Sshd) -> str:
    """Use the sshd as the project's DVC remote; return its address."""
    folder = project.path.parent / "store"
    folder.mkdir()
    config = project.path / ".dvc" / "config"
    text = config.read_text().replace(f"url = {folder}", f"url = ssh://127.0.0.1{folder}")
    config.write_text(
        f"{text}    port = {sshd.port}\n    user = {getpass.getuser()}\n    keyfile = {sshd.folder / 'user'}\n"
    )
    return repository.choose_data_remote(None)[1]


def test_separate_user_and_port_are_in_the_destination(project: Project, sshd: Sshd) -> None:
    address = use_ssh_remote(project, sshd)
    assert repository.ssh_host(address) == f"ssh://{getpass.getuser()}@127.0.0.1:{sshd.port}"


def test_remote_with_an_unknown_host_key_gets_no_data(project: Project, sshd: Sshd) -> None:
    address = use_ssh_remote(project, sshd)  # the server is not in ~/.ssh/known_hosts
    with pytest.raises(LeafError, match=r"DVC remote: .*known_hosts"):
        repository.push_data("store", address)
    assert not list((project.path.parent / "store").iterdir())


def test_unreachable_host_is_left_to_dvc(sshd: Sshd) -> None:
    assert host_key_refused("ssh://127.0.0.1:1", dict(os.environ)) == ""


@pytest.mark.slow
def test_ssh_remote_round_trip(project: Project, sshd: Sshd) -> None:
    use_ssh_remote(project, sshd)
    run("dvc", "push", "-q", cwd=project.path)
    (project.path / "data" / "raw" / "leaves.txt").unlink()
    run("rm", "-rf", ".dvc/cache", cwd=project.path)
    run("dvc", "pull", "-q", "data/raw/leaves.txt", cwd=project.path)
    assert (project.path / "data" / "raw" / "leaves.txt").read_text() == "leaf\n"


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """Start an S3 server with a bucket; skip if it cannot be installed."""
    pytest.importorskip("dvc_s3")
    try:
        server = Bucket(tmp_path / "moto.log")
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"moto does not install here: {str(error.stderr).strip().splitlines()[-1:]}")
    try:
        urllib.request.urlopen(urllib.request.Request(f"{server.address}/leaf", method="PUT"), timeout=30)
        keys = tmp_path / "aws"  # in place of ~/.aws/config on both machines
        keys.write_text("[default]\naws_access_key_id = test\naws_secret_access_key = test\nregion = us-east-1\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(keys))
        yield server
    finally:
        server.stop()


@pytest.mark.slow
@pytest.mark.full
def test_s3_remote_round_trip_into_a_fresh_clone(
    project: Project, on_box: Callable[..., Project], bucket: Bucket
) -> None:
    run("dvc", "remote", "add", "-q", "-d", "-f", "store", "s3://leaf/store", cwd=project.path)
    run("dvc", "remote", "modify", "-q", "store", "endpointurl", bucket.address, cwd=project.path)
    on_box(project, AWS_CONFIG_FILE=os.environ["AWS_CONFIG_FILE"])  # also commits the remote's settings
    project.leaf("submit", "-S", "seed=8")
    project.leaf("fetch", "--wait", "--every", "0.3")
    assert json.loads(project.file("seed-8", "metrics.json")) == expected(seed=8)
    assert not (project.path.parent / "store").exists()
    fresh = project.path.parent / "fresh"
    run("git", "clone", "-q", str(project.path.parent / "origin.git"), str(fresh), cwd=project.path.parent)
    reference = run("git", "ls-remote", "origin", "refs/exps/*", cwd=fresh).split()[1]
    run("git", "fetch", "-q", "origin", reference, cwd=fresh)
    run("git", "checkout", "-q", "FETCH_HEAD", cwd=fresh)
    run("dvc", "pull", "-q", cwd=fresh)
    assert (fresh / "data/raw/leaves.txt").read_text() == "leaf\n"
    assert len((fresh / "model.txt").read_text()) == 64
