"""`leaf submit` reports errors in one line, before it pushes or starts anything."""

import pytest
from tiny import Project

from leaf.errors import LeafError
from leaf.runner import repository
from leaf.runner.config import Local
from leaf.runner.jobs import _under_way, follow, listing
from leaf.runner.plan import FOLDER, Planned, Record, read_records
from leaf.runner.ssh import ProcessEngine, Status


def test_uncommitted_change_is_rejected_with_the_git_command(project: Project) -> None:
    (project.path / "train.py").write_text("changed")
    message = project.leaf("submit", status=2)
    assert message.count("error: ") == 1
    assert "train.py, but the target runs the last commit" in message.splitlines()[-1]
    assert "git add -A && git commit" in message


def test_untracked_file_counts_as_a_change(project: Project) -> None:
    (project.path / "new file.py").write_text("")
    with pytest.raises(LeafError, match="new file"):
        repository.committed_revision()


def test_address_with_a_password_is_rejected(project: Project) -> None:
    project.git("remote", "set-url", "origin", "https://grower:hunter2@example.org/leaf.git")
    with pytest.raises(LeafError, match="secret") as error:
        repository.origin("origin")
    assert "hunter2" not in str(error.value)


def test_local_dvc_remote_is_rejected(project: Project) -> None:
    (project.path / ".dvc" / "config.local").write_text("['remote \"mine\"']\n    url = /x\n")
    with pytest.raises(LeafError, match=r"DVC remote mine: not in \.dvc/config"):
        repository.choose_data_remote("mine")


def test_name_at_the_origin_is_taken(project: Project) -> None:
    revision = project.git("rev-parse", "HEAD")
    project.git("push", "-q", "origin", f"HEAD:{repository.reference(revision, 'seed-1')}")
    assert repository.taken("origin", revision, ["seed-1", "seed-2"]) == ["seed-1"]


def test_failed_push_raises_a_one_line_error(project: Project) -> None:
    project.git("remote", "set-url", "origin", "/nosuch/origin.git")
    with pytest.raises(LeafError, match=r"^git push: "):
        repository.git("push", "--quiet", "origin", "HEAD:refs/leaf/a")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "7", '{"id": 1}', '{"id": "a", "experiments": [{"name": 1}]}'])
def test_damaged_job_record_raises_a_one_line_error(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    FOLDER.mkdir(parents=True)
    (FOLDER / "1.json").write_text(text)
    with pytest.raises(LeafError, match=r"1\.json: ") as caught:
        read_records()
    assert "\n" not in str(caught.value)


def test_error_for_a_missing_git_author_contains_the_command(project: Project) -> None:
    project.git("config", "--unset", "user.name")
    with pytest.raises(LeafError, match=r"git user\.name.*git config --global user\.name"):
        repository.author()


def test_table_of_jobs_and_logs_escape_terminal_codes(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record("20260101-000000-aaaa", "box", {"engine": "local"}, "0" * 40, [Planned("a", ())])
    record.write()
    engine = ProcessEngine(Local(engine="local"))
    monkeypatch.setattr("leaf.runner.jobs.engine_for", lambda _: engine)
    monkeypatch.setattr(engine, "status", lambda _: [Status("running", "\x1b[2J")])
    monkeypatch.setattr(engine, "log", lambda _, index, offset: ("\x1b]0;x\x07\n" if not offset else "", 1))
    assert "\x1b" not in "".join([*listing([]), *follow("a", False, 1)])


def test_lost_job_frees_its_name_without_a_fetch(project: Project) -> None:
    revision = project.git("rev-parse", "HEAD")
    Record("20260101-000000-aaaa", "local", {"engine": "local"}, revision, [Planned("a", ())]).write()
    assert _under_way(revision, ["a"]) == []
    assert read_records()[0].ended == {"a": "lost"}


def test_unreachable_target_keeps_the_name(project: Project) -> None:
    revision = project.git("rev-parse", "HEAD")
    target = {"engine": "ssh", "host": "nosuch.invalid"}
    Record("20260101-000000-aaaa", "box", target, revision, [Planned("a", ())]).write()
    assert _under_way(revision, ["a"]) == ["a"]
