"""Fuzz params.yaml and `-S` settings: each is accepted or rejected with a one-line error."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaf.experiments import parse_settings, with_settings
from leaf.params import keys, load, validate

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.sampled_from(["all", "1e-3", "auto"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
KEYS = st.one_of(st.sampled_from([*keys(), "learning_rate", "augmentation", "drawn"]), st.text(max_size=12))


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(values=st.dictionaries(KEYS, VALUES, max_size=5))
def test_random_parameters_are_valid_or_rejected(accept_or_refuse, values):
    accept_or_refuse(validate, values)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(values=st.dictionaries(KEYS, VALUES, max_size=4))
def test_random_settings_are_valid_or_rejected(accept_or_refuse, values):
    accept_or_refuse(with_settings, {}, values)


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(st.text(max_size=40), max_size=3))
def test_random_text_after_S_is_parsed_or_rejected(accept_or_refuse, texts):  # noqa: N802
    accept_or_refuse(parse_settings, texts)


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_random_bytes_as_params_yaml_are_read_or_rejected(accept_or_refuse, tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "params.yaml"
    path.write_bytes(content)
    accept_or_refuse(load, path)
