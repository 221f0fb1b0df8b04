"""What `leaf submit` refuses, in one line, before anything is pushed or started."""

import pytest
from tiny import Project

from leaf.errors import LeafError
from leaf.runner import repository
from leaf.runner.plan import FOLDER, read_records


def test_a_change_that_is_not_committed_is_refused_with_the_command_that_commits_it(project: Project) -> None:
    (project.path / "train.py").write_text("changed")
    said = project.leaf("submit", status=2)
    assert said.count("error: ") == 1
    assert "train.py not committed" in said.splitlines()[-1]
    assert "git add -A && git commit" in said


def test_a_new_file_counts_as_a_change(project: Project) -> None:
    (project.path / "new file.py").write_text("")
    with pytest.raises(LeafError, match="new file"):
        repository.committed_revision()


def test_an_address_with_a_password_is_refused(project: Project) -> None:
    project.git("remote", "set-url", "origin", "https://grower:hunter2@example.org/leaf.git")
    with pytest.raises(LeafError, match="holds a secret") as error:
        repository.origin("origin")
    assert "hunter2" not in str(error.value)


def test_a_dvc_remote_that_only_this_machine_knows_is_refused(project: Project) -> None:
    (project.path / ".dvc" / "config.local").write_text("['remote \"mine\"']\n    url = /x\n")
    with pytest.raises(LeafError, match=r"DVC remote mine: not in \.dvc/config"):
        repository.choose_data_remote("mine")


def test_a_name_that_the_origin_has_is_taken(project: Project) -> None:
    revision = project.git("rev-parse", "HEAD")
    project.git("push", "-q", "origin", f"HEAD:{repository.reference(revision, 'seed-1')}")
    assert repository.taken("origin", revision, ["seed-1", "seed-2"]) == ["seed-1"]


def test_a_failing_push_is_one_line(project: Project) -> None:
    project.git("remote", "set-url", "origin", "/nosuch/origin.git")
    with pytest.raises(LeafError, match=r"^git push: "):
        repository.publish("origin", project.git("rev-parse", "HEAD"))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "7", '{"id": 1}', '{"id": "a", "experiments": [{"name": 1}]}'])
def test_a_broken_record_of_a_job_is_one_line(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    FOLDER.mkdir(parents=True)
    (FOLDER / "1.json").write_text(text)
    with pytest.raises(LeafError, match=r"1\.json: ") as caught:
        read_records()
    assert "\n" not in str(caught.value)
