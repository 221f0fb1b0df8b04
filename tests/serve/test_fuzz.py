"""API responses to generated requests match the OpenAPI schema (schemathesis)."""

import hypothesis
import pytest
import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance

from leaf.serve.web import create_app

UPLOADS = ["POST /api/heatmap", "POST /api/predict"]


@pytest.fixture
def operations(stub_classifier):
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(stub_classifier))
    operations = [result.ok() for result in schema.get_all_operations()]
    return {operation.label: operation for operation in operations}


def test_document_lists_every_path(operations):
    assert set(operations) == {"GET /health", *UPLOADS}


@pytest.mark.slow
@pytest.mark.parametrize("label", UPLOADS)
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_responses_match_the_document(operations, label, mode):
    @hypothesis.given(case=operations[label].as_strategy(generation_mode=mode))
    @hypothesis.settings(
        max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
    )
    def fuzz(case):
        # Random bytes match the schema but are not an image, so the server may reject them.
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    fuzz()
