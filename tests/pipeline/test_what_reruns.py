"""Test which stages `dvc status` lists as changed after an edit in a finished clone."""

import json

import pytest


def stages_to_rerun(project, file):
    """Return the stages that DVC would rerun after a comment is added to the file."""
    path = project.folder / file
    before = path.read_text(encoding="utf-8")
    mark = {".py": "\n# edited\n", ".html": "\n<!-- edited -->\n", ".j2": "\n{# edited #}\n"}[path.suffix]
    path.write_text(before + mark, encoding="utf-8")
    try:
        return set(json.loads(project.run("dvc", "status", "--json").stdout))
    finally:
        path.write_text(before, encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    "file",
    ["leaf/serve/web.py", "leaf/serve/page/index.html", "leaf/cli/check.py", "leaf/params.py", "leaf/errors.py"],
)
def test_edit_of_a_page_command_or_message_reruns_nothing(project, file):
    assert stages_to_rerun(project, file) == set()


@pytest.mark.slow
@pytest.mark.parametrize("file", ["leaf/report/advice.py", "leaf/report/templates/report.html.j2"])
def test_edit_of_the_report_reruns_only_the_report(project, file):
    assert stages_to_rerun(project, file) == {"report"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("leaf/models/convnext.py", "train"),
        ("leaf/train/trainer.py", "train"),
        ("leaf/ingest/decode.py", "ingest"),
        ("leaf/evaluate/evaluation.py", "evaluate"),
        ("stages/split.py", "split"),
    ],
)
def test_edit_of_a_stage_reruns_it(project, file, stage):
    assert stage in stages_to_rerun(project, file)
