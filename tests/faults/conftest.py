"""Fixture of the fuzz tests."""

import pytest

from leaf.errors import LeafError


@pytest.fixture(scope="session")
def accept_or_refuse():
    """Return a function that calls another one and allows no error but a one-line LeafError."""

    def call(function, *arguments):
        try:
            function(*arguments)
        except LeafError as error:
            message = str(error)
            assert len(message) > 10
            assert "\n" not in message

    return call
