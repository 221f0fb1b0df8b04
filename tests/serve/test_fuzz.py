"""The API keeps to its OpenAPI document whatever is sent (schemathesis)."""

import hypothesis
import pytest
import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance

from leaf.serve.web import create_app

SENT_TO = ["POST /api/heatmap", "POST /api/predict"]


@pytest.fixture
def operations(stand_in):
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(stand_in))
    return {made.label: made for made in (found.ok() for found in schema.get_all_operations())}


def test_every_address_is_in_the_document(operations):
    assert set(operations) == {"GET /health", *SENT_TO}


@pytest.mark.slow
@pytest.mark.parametrize("label", SENT_TO)
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_every_answer_is_one_that_the_document_names(operations, label, mode):
    @hypothesis.given(case=operations[label].as_strategy(generation_mode=mode))
    @hypothesis.settings(
        max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
    )
    def fuzz(case):
        # A file of random bytes fits the document and is no photograph: to refuse it is right.
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    fuzz()
