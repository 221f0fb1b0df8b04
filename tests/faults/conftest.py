"""What the tests of refused inputs share."""

import pytest

from leaf.errors import LeafError


@pytest.fixture(scope="session")
def refused_in_one_line():
    """Call a function that may refuse what it is given: in one line, and with no other error."""

    def call(function, *arguments):
        said = None
        try:
            function(*arguments)
        except LeafError as error:
            said = str(error)
        assert said is None or (len(said) > 10 and "\n" not in said)

    return call
