"""Test planning experiments from rows, settings and sweeps. Errors are raised before anything is sent."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaf.errors import LeafError
from leaf.runner.plan import check_name, plan, split_commas, sweep


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text("seed: 42\n")
    (tmp_path / "experiments.yaml").write_text(
        "dropout_02: {why: more, set: {dropout: 0.2}}\nturned: {why: turned, set: {augmentation.rotation: 20}}\n"
    )
    monkeypatch.chdir(tmp_path)


def test_sweep_over_two_keys_is_their_product() -> None:
    assert sweep(["seed=1,2", "epochs=3,4"]) == [
        ("seed=1", "epochs=3"),
        ("seed=1", "epochs=4"),
        ("seed=2", "epochs=3"),
        ("seed=2", "epochs=4"),
    ]


def test_commas_in_brackets_and_quotes_do_not_split() -> None:
    assert split_commas("[a,b],'c,d',\"e,f\"") == ["[a,b]", "'c,d'", '"e,f"']


@given(st.lists(st.text(alphabet="ab1 ", min_size=1), min_size=1))
def test_split_and_join_round_trip(parts: list[str]) -> None:
    assert split_commas(",".join(parts)) == parts


def test_each_row_runs_with_each_combination() -> None:
    planned = plan(["dropout_02", "turned"], ["seed=1,2"])
    assert [one.name for one in planned] == ["dropout_02-seed-1", "dropout_02-seed-2", "turned-seed-1", "turned-seed-2"]
    assert planned[0].settings == ("dropout=0.2", "seed=1")


def test_all_plans_every_row() -> None:
    assert [one.name for one in plan([], [], every=True)] == ["dropout_02", "turned"]


def test_no_rows_and_settings_runs_params_yaml() -> None:
    assert [(one.name, one.settings) for one in plan([], [])] == [("run", ())]


def test_name_replaces_one_and_prefixes_several() -> None:
    assert [one.name for one in plan([], ["seed=1"], name="try")] == ["try"]
    assert [one.name for one in plan([], ["seed=1,2"], name="try")] == ["try-seed-1", "try-seed-2"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["seed"], "not a setting; valid: key=value"),
        (["seed=-1"], "seed: -1; valid: an integer from 0 to 2147483647"),
        (["sede=1"], "sede: unknown key; did you mean seed?"),
        (["+seed=1"], "not a setting"),
        (["~seed=1"], "not a setting"),
        (["seed=1,1"], "two experiments have this name"),
        (["seed=" + ",".join(map(str, range(1001)))], "1001 experiments; valid: at most 1000"),
    ],
)
def test_invalid_setting_is_rejected(settings: list[str], message: str) -> None:
    with pytest.raises(LeafError) as error:
        plan([], settings)
    assert message in str(error.value)


def test_error_for_an_unknown_row_lists_valid_rows() -> None:
    with pytest.raises(LeafError, match=r"nosuch: .*valid: dropout_02, turned"):
        plan(["nosuch"], [])


@pytest.mark.parametrize("path", ["/data/leaves.npz", "~/leaves.npz", "../leaves.npz"])
def test_data_set_outside_the_project_is_rejected_with_the_dvc_command(path: str) -> None:
    with pytest.raises(LeafError, match=r"dataset: .* outside the project.*`dvc add`"):
        plan([], [f"dataset={path}"])


@pytest.mark.parametrize(
    "name",
    ["", "a b", "-n", "a;b", "$(touch x)", "a/b", "../a", "a..b", "a.lock", "a\nb", "é", "x" * 101, "--output=x"],
)
def test_unsafe_name_is_rejected(name: str) -> None:
    with pytest.raises(LeafError, match="not a valid experiment name"):
        check_name(name)


def test_names_from_hostile_values_are_safe() -> None:
    (one,) = plan([], ["backbone='$(touch x); `id`'"])
    assert one.name == "backbone-touch-x-id"


def test_long_names_are_shortened_and_distinct() -> None:
    first, second = plan([], [f"backbone={'a' * 90}b,{'a' * 90}c"])
    assert max(len(first.name), len(second.name)) <= 80
    assert first.name != second.name
