"""Projects that the tests of faults may harm."""

import shutil

import pytest


@pytest.fixture(scope="module")
def copy(project, tmp_path_factory):
    """A copy of the finished small run, one for each file of tests."""
    made = object.__new__(type(project))
    made.folder = tmp_path_factory.mktemp("copy") / "project"
    shutil.copytree(project.folder, made.folder, symlinks=True)
    return made
