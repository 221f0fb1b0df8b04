import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaf.clean.decisions import Overrides, decide

NONE = Overrides(frozenset(), frozenset(), {})


def decisions(
    letters: str,
    copies: list[int],
    labels: list[int] | None = None,
    outlier: tuple[int, ...] = (),
    overrides: Overrides = NONE,
    **policies: str,
) -> pd.DataFrame:
    """Decide which images to keep. Each character of `letters` is the hash of one image."""
    outliers = [image in outlier for image in range(len(letters))]
    table = pd.DataFrame(
        {"label": labels or 0, "hash": list(letters), "copies": copies, "outlier": outliers, "split": ""}
    )
    return decide(table, overrides, **policies)  # type: ignore[arg-type]


def test_first_copy_is_kept_and_referenced_by_the_others() -> None:
    made = decisions("abac", [0, 1, 0, 1])
    assert made.kept.tolist() == [True, True, False, False]
    assert made.reason.tolist() == ["", "", "duplicate", "near_duplicate"]
    assert made.copy_of.tolist() == [-1, -1, 0, 1]


def test_an_exact_copy_of_a_near_duplicate_refers_to_the_kept_image() -> None:
    made = decisions("abb", [0, 0, 0])
    assert made.reason.tolist() == ["", "near_duplicate", "duplicate"]
    assert made.copy_of.tolist() == [-1, 0, 0]


def test_only_the_first_image_of_a_chain_of_near_duplicates_is_kept() -> None:
    assert decisions("abc", [0, 0, 0]).kept.tolist() == [True, False, False]


def test_all_copies_of_an_outlier_are_removed() -> None:
    made = decisions("aab", [0, 0, 2], outlier=(0, 1))
    assert made.reason.tolist() == ["outlier", "outlier", ""]


def test_duplicates_keep_keeps_copies_but_not_outliers() -> None:
    assert decisions("aabb", [0, 0, 2, 2], outlier=(2, 3), duplicates="keep").kept.tolist() == [
        True,
        True,
        False,
        False,
    ]


def test_conflicts_report_counts_and_keeps_the_first_copy() -> None:
    made = decisions("aab", [0, 0, 2], [0, 1, 0])
    assert made.conflict.tolist() == [True, True, False]
    assert (made.kept.tolist(), made.label.tolist()) == ([True, False, True], [0, 1, 0])


def test_conflicts_drop_removes_copies_with_different_labels() -> None:
    made = decisions("aab", [0, 0, 2], [0, 1, 0], conflicts="drop")
    assert made.reason.tolist() == ["conflict", "conflict", ""]


def test_conflicts_majority_relabels_the_kept_copy() -> None:
    made = decisions("aaa", [0, 0, 0], [0, 1, 1], conflicts="majority")
    assert (made.label[0], made.reason[0], made.kept.tolist()) == (1, "relabelled", [True, False, False])


def test_conflicts_majority_drops_a_tie() -> None:
    assert decisions("aa", [0, 0], [0, 1], conflicts="majority").reason.tolist() == ["conflict", "conflict"]


def test_outliers_with_different_labels_are_not_a_conflict() -> None:
    assert not decisions("aab", [0, 0, 2], [0, 1, 0], outlier=(0, 1)).conflict.any()


def test_override_keep_keeps_one_copy_of_an_outlier() -> None:
    made = decisions("aab", [0, 0, 2], outlier=(0, 1), overrides=Overrides(frozenset("a"), frozenset(), {}))
    assert made.reason.tolist() == ["override", "duplicate", ""]


def test_override_keep_keeps_a_near_duplicate() -> None:
    made = decisions("ab", [0, 0], overrides=Overrides(frozenset("b"), frozenset(), {}))
    assert made.kept.tolist() == [True, True]


def test_override_keep_keeps_an_image_of_a_dropped_set() -> None:
    made = decisions("ab", [0, 0], [0, 1], overrides=Overrides(frozenset("b"), frozenset(), {}), conflicts="drop")
    assert made.reason.tolist() == ["conflict", "override"]


def test_override_drop_removes_all_exact_copies() -> None:
    made = decisions("aab", [0, 0, 0], overrides=Overrides(frozenset(), frozenset("a"), {}))
    assert made.reason.tolist() == ["override", "override", ""]


def test_override_relabel_applies_to_all_copies() -> None:
    made = decisions("ab", [0, 0], [0, 1], overrides=Overrides(frozenset(), frozenset(), {"b": 1}), conflicts="drop")
    assert (made.label.tolist(), made.kept.tolist(), made.conflict.any()) == ([1, 1], [True, False], False)
    assert made.reason[0] == "relabelled"


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, list[int], list[int], tuple[int, ...], Overrides, dict[str, str]]:
    count = draw(st.integers(1, 14))
    letters = "".join(draw(st.lists(st.sampled_from("abcdefg"), min_size=count, max_size=count)))
    # Near duplicates connect different letters, so a set of copies contains all images of one or more letters.
    near = {letter: draw(st.sampled_from("ABC")) for letter in "abcdefg"}
    sets = [near[letter] for letter in letters]
    labels = draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))
    outlier = tuple(i for i in range(count) if draw(st.integers(0, 4)) == 0)
    keep, drop, relabel = (set(draw(st.lists(st.sampled_from("abcdefg"), max_size=2))) for _ in range(3))
    overrides = Overrides(
        frozenset(keep), frozenset(drop - keep), {letter: draw(st.integers(0, 1)) for letter in relabel}
    )
    policies = {
        "duplicates": draw(st.sampled_from(["remove", "keep"])),
        "conflicts": draw(st.sampled_from(["report", "drop", "majority"])),
    }
    return letters, [sets.index(name) for name in sets], labels, outlier, overrides, policies


@given(cases())
@settings(max_examples=150, deadline=None)
def test_each_removed_copy_refers_to_a_kept_image(case: tuple) -> None:
    letters, copies, labels, outlier, overrides, policies = case
    made = decisions(letters, copies, labels, outlier, overrides, **policies)
    gone = ("outlier", "duplicate", "near_duplicate", "conflict", "override")
    for image in range(len(letters)):
        if made.kept[image]:
            assert made.reason[image] in ("", "relabelled", "override")
        else:
            assert made.reason[image] in gone
        named = made.copy_of[image]
        assert (named >= 0) == (made.reason[image] in ("duplicate", "near_duplicate"))
        if named >= 0:
            assert made.kept[named]
            assert copies[named] == copies[image]
        if letters[image] in overrides.drop:
            assert not made.kept[image]
    for letter in overrides.keep & set(letters):
        assert any(made.kept[i] for i in range(len(letters)) if letters[i] == letter)


@pytest.mark.parametrize("policy", ["report", "majority"])
def test_number_of_kept_images_does_not_depend_on_their_order(policy: str) -> None:
    rng = np.random.default_rng(8)
    for _ in range(20):
        letters, sets = rng.choice(list("abcdef"), 12), {letter: rng.choice(list("XYZ")) for letter in "abcdef"}
        labels = np.array([sets[p] == "X" for p in letters]).astype(int)
        totals = set()
        for order in (np.arange(12), rng.permutation(12)):
            names = [sets[p] for p in letters[order]]
            made = decisions(
                "".join(letters[order]), [names.index(n) for n in names], labels[order].tolist(), conflicts=policy
            )
            totals.add((int(made.kept.sum()), int((made.reason == "duplicate").sum())))
        assert len(totals) == 1
