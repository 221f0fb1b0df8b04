"""DVC remotes over ssh: DVC's own client takes any host key, so OpenSSH is asked first."""

import getpass
import os

import pytest
from servers import Sshd
from tiny import Project, run

from leaf.errors import LeafError
from leaf.runner import repository
from leaf.runner.task import host_key_refused


def use_ssh_remote(project: Project, sshd: Sshd) -> str:
    """Give the project the sshd as its DVC remote; the answer is its address."""
    folder = project.path.parent / "store"
    folder.mkdir()
    config = project.path / ".dvc" / "config"
    text = config.read_text().replace(f"url = {folder}", f"url = ssh://127.0.0.1{folder}")
    config.write_text(
        f"{text}    port = {sshd.port}\n    user = {getpass.getuser()}\n    keyfile = {sshd.folder / 'user'}\n"
    )
    return repository.choose_data_remote(None)[1]


def test_user_and_port_beside_the_address_are_part_of_the_destination(project: Project, sshd: Sshd) -> None:
    address = use_ssh_remote(project, sshd)
    assert repository.ssh_host(address) == f"ssh://{getpass.getuser()}@127.0.0.1:{sshd.port}"


def test_a_remote_whose_host_key_is_unknown_gets_no_data(project: Project, sshd: Sshd) -> None:
    address = use_ssh_remote(project, sshd)  # ~/.ssh/known_hosts does not have the test's server
    with pytest.raises(LeafError, match=r"DVC remote: the key of .* is unknown or has changed"):
        repository.push_data("store", address)
    assert not list((project.path.parent / "store").iterdir())


def test_a_host_that_cannot_be_reached_is_left_to_dvc_to_tell(sshd: Sshd) -> None:
    assert host_key_refused("ssh://127.0.0.1:1", dict(os.environ)) == ""


@pytest.mark.slow
def test_data_goes_to_an_ssh_remote_and_comes_back(project: Project, sshd: Sshd) -> None:
    use_ssh_remote(project, sshd)
    run("dvc", "push", "-q", cwd=project.path)
    (project.path / "data" / "raw" / "leaves.txt").unlink()
    run("rm", "-rf", ".dvc/cache", cwd=project.path)
    run("dvc", "pull", "-q", "data/raw/leaves.txt", cwd=project.path)
    assert (project.path / "data" / "raw" / "leaves.txt").read_text() == "leaf\n"
