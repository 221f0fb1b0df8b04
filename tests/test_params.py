"""Test the schema of params.yaml and its one-line errors."""

import json
import re
from pathlib import Path

import pytest
import yaml
from dvc.utils.serialize import modify_yaml
from pydantic import BaseModel

from leaf.errors import LeafError
from leaf.params import Params, keys, load, read_params, validate
from leaf.store import parse_yaml, read_yaml

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"dropuot": 0.1}, "dropuot: unknown key; did you mean dropout?"),
        ({"learning_rate": {"bse": 1}}, "learning_rate.bse: unknown key; did you mean learning_rate.base?"),
        ({"dropout": 1}, "dropout: 1; valid: a fraction ≥ 0 and < 1"),
        ({"dropout": float("nan")}, "dropout: nan; valid"),
        ({"dropout": "high"}, "dropout: 'high'; valid"),
        ({"dropout": True}, "dropout: True; valid"),
        ({"batch_size": "32"}, "batch_size: '32'; valid: an integer from 1 to 65536"),
        ({"batch_size": 0}, "batch_size: 0; valid"),
        ({"near_turns": "yes please"}, "near_turns: 'yes please'; valid: true, false"),
        ({"classes": ["a", "a"]}, "classes: ['a', 'a']; valid: at least two different names"),
        ({"classes": ["a"]}, "classes: ['a']; valid: auto, a list of at least two names"),
        ({"validation_size": 0}, "validation_size: 0, but early stopping"),
        ({"test_size": 1.0}, "test_size: 1.0; valid"),
        ({"learning_rate": 3}, "learning_rate: 3; valid: a mapping with the keys policy"),
        ({"learning_rate": {"base": 0.1, "max": 0.01}}, "learning_rate.max: 0.01 is below"),
        ({"micro_batch": 5}, "micro_batch: 5; valid: 0 (off), or a divisor of batch_size (32)"),
        ({"references": "x"}, "references: 'x'; valid: auto"),
        ({"weights_sha256": "abc"}, "weights_sha256: 'abc'; valid: 64 lowercase hex digits"),
        ({"folds": 1}, "folds: 1; valid: 0 (off), or an integer from 2 to 100"),
        ({"folds": 5, "fold": 5}, "fold: 5; valid: 0 to 4, because folds is 5"),
        ({"fold": 1}, "fold: 1; valid: 0, because folds is 0"),
        ([1], "not a mapping"),
    ],
)
def test_invalid_value_is_one_line_with_key_value_and_valid_values(values, said):
    with pytest.raises(LeafError, match=r"^params\.yaml: ") as caught:
        validate(values)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_exponent_written_by_dvc_is_read_as_a_number():
    # DVC #5971: `-S learning_rate.base=2e-5` is written 2e-05, which YAML 1.1 reads as a string.
    assert validate(parse_yaml("learning_rate: {base: 2e-05}", "params.yaml")).learning_rate.base == 2e-5


WORDS = [
    "yes",
    "no",
    "on",
    "y",
    "true",
    "null",
    "~",
    "007",
    "2026-01-01",
    "12:30:45",
    "1e3",
    "0x1f",
    "1_000",
    "-x",
    "a: b",
]


def test_text_that_looks_like_another_type_is_preserved_by_dvc(tmp_path):
    # DVC omits quotes that YAML 1.2 does not require. In YAML 1.1, an unquoted `yes` is a boolean.
    path = tmp_path / "params.yaml"
    path.write_text(json.dumps({"classes": WORDS, "dropout": 0.1}))
    with modify_yaml(str(path)) as written:
        written["dropout"] = 2e-5
    assert read_yaml(path) == {"classes": WORDS, "dropout": 2e-5}


@pytest.mark.parametrize(
    "text",
    ["seed: " + "9" * 5000, "a: " + "[" * 5000, "a: 2026-99-99", "seed: 1\nseed: 2"],
    ids=["digits", "brackets", "date", "twice"],
)
def test_yaml_bomb_is_rejected_in_one_line(text):
    with pytest.raises(LeafError) as caught:
        parse_yaml(text, "params.yaml")
    assert len(str(caught.value)) < 400


def test_value_of_nested_aliases_is_shortened_in_the_error():
    text = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{name}: &{name} [{','.join([f'*{last}'] * 9)}]\n" for last, name in zip("abcdefg", "bcdefgh", strict=True)
    )
    with pytest.raises(LeafError) as caught:
        validate({"seed": parse_yaml(text, "params.yaml")["h"]})
    assert len(str(caught.value)) < 3000


def test_stage_reads_only_its_listed_keys(monkeypatch):
    monkeypatch.chdir(ROOT)
    params = read_params("train")
    assert (params.dropout, params.learning_rate.base) == (0.1, 1e-4)
    with pytest.raises(AttributeError):
        _ = params.near_mse


@pytest.mark.parametrize("size", [1, 500, 0.2])
def test_sizes_are_counts_or_fractions(size):
    assert validate({"validation_size": size}).validation_size == float(size)


def test_defaults_are_fixed():
    defaults = {name: entry["default"] for name, entry in keys().items()}
    fixed = {
        "dropout": 0.1,
        "classes": ["healthy", "unhealthy"],
        "duplicates": "remove",
        "balance": "smote",
        "backbone": "convnext_atto",
        "weights": "random",
        "freeze_depth": 0,
    }
    assert {name: defaults[name] for name in fixed} == fixed


def test_params_yaml_has_every_key_with_a_comment():
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    load(ROOT / "params.yaml")
    written = yaml.safe_load(text)
    flat = {
        f"{key}.{name}" if isinstance(value, dict) else key
        for key, value in written.items()
        for name in (value if isinstance(value, dict) else [key])
    }
    assert flat == set(keys())
    for line in text.splitlines():
        assert not line or line.startswith("#") or line.endswith(":") or "  # " in line, line


def test_missing_or_invalid_file_is_one_line(tmp_path):
    path = tmp_path / "params.yaml"
    with pytest.raises(LeafError, match="no such file"):
        load(path)
    path.write_text("a: [1,\nb: }", encoding="utf-8")
    with pytest.raises(LeafError, match="not YAML"):
        load(path)


def test_yaml_tag_is_rejected(tmp_path):
    path = tmp_path / "params.yaml"
    target = tmp_path / "ran"
    path.write_text(f"dataset: !!python/object/apply:os.system ['touch {target}']", encoding="utf-8")
    with pytest.raises(LeafError, match="not YAML"):
        load(path)
    assert not target.exists()


@pytest.mark.parametrize("threshold", [0.4, "validation"])
def test_threshold_is_rejected_for_three_classes(threshold):
    three = {"classes": {"healthy": ["*healthy"], "rust": ["*rust"], "other": ["*"]}, "threshold": threshold}
    with pytest.raises(LeafError, match=rf"params\.yaml: threshold: {threshold}; valid: 0\.5"):
        validate(three)
    validate({**three, "classes": "auto"})


def limits(kind=Params, prefix=""):
    """Yield each key that has limits, with each of its limits."""
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from limits(field.annotation, f"{name}.")
        found = [
            getattr(each, way) for each in field.metadata for way in ("ge", "gt", "le", "lt") if hasattr(each, way)
        ]
        if found:
            yield prefix + name, found


@pytest.mark.parametrize(("key", "found"), limits())
def test_error_for_a_bounded_key_lists_its_limits(key, found):
    group, _, name = key.rpartition(".")
    with pytest.raises(LeafError) as caught:
        validate({group: {name: -1e9}} if group else {name: -1e9})
    told = re.findall(r"\d+", str(caught.value).split("valid: ")[1])
    assert [str(limit) for limit in found if str(limit) not in told] == []
