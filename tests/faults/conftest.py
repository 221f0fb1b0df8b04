"""Fixtures for the fuzz tests and the full-disk tests."""

import os
import subprocess
from contextlib import contextmanager

import pytest

from leaf.errors import LeafError


@pytest.fixture(scope="session")
def accept_or_refuse():
    """Return a function that calls its argument and accepts no error except a one-line LeafError."""

    def call(function, *arguments):
        try:
            function(*arguments)
        except LeafError as error:
            message = str(error)
            assert len(message) > 10
            assert "\n" not in message

    return call


@pytest.fixture(scope="session")
def tmpfs():
    """Return a context manager that mounts a file system of `size` bytes on a folder; skip if it cannot be mounted."""

    @contextmanager
    def mount(folder, size):
        if os.geteuid():
            pytest.skip("mounting a tmpfs needs root")
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        mounted = subprocess.run(command, capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"cannot mount a tmpfs: {mounted.stderr}")
        try:
            yield folder
        finally:
            subprocess.run(["umount", folder], check=True)

    return mount
