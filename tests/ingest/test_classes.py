"""Test class names: as found, from a list, or by patterns."""

import pytest

from leaf.errors import LeafError
from leaf.ingest.classes import resolve

PLANTS = ["Apple___scab", "Apple___healthy", "Bean___Healthy", "Background", "Bean___rust"]
TWO = {"healthy": ["*healthy"], "unhealthy": ["*"]}


def classes(found, wanted="auto", ignore=()):
    names, labels = resolve(found, [f"{name}/1.jpg" for name in found], wanted, ignore, "d")
    return names, labels.tolist()


def refusal(*arguments):
    with pytest.raises(LeafError) as caught:
        classes(*arguments)
    return caught.value


def test_auto_sorts_names_with_healthy_ones_first():
    names, labels = classes(PLANTS)
    assert names == ["Apple___healthy", "Bean___Healthy", "Apple___scab", "Background", "Bean___rust"]
    assert [names[label] for label in labels] == PLANTS


def test_unhealthy_is_not_healthy():
    assert classes(["Unhealthy", "a"])[0] == ["Unhealthy", "a"]
    assert classes(["a_unhealthy", "a_healthy"])[0] == ["a_healthy", "a_unhealthy"]


def test_numbers_are_sorted_by_value():
    assert classes(["10", "9", "2"])[0] == ["2", "9", "10"]


def test_first_matching_pattern_applies_ignoring_case():
    assert classes(PLANTS, TWO) == (["healthy", "unhealthy"], [1, 0, 0, 1, 1])


def test_ignored_classes_get_no_label():
    assert classes([*PLANTS, "Background"], TWO, ["back*"])[1] == [1, 0, 0, -1, 1, -1]


def test_list_defines_names_and_order():
    assert classes(["a", "b", "a"], ["b", "a"]) == (["b", "a"], [1, 0, 1])


def test_integers_are_indices_into_a_list_or_class_names():
    assert classes([1, 0, 2], ["x", "y", "z"])[1] == [1, 0, 2]
    assert classes([1, 0, 10])[0] == ["0", "1", "10"]


def test_unknown_class_names_are_rejected_with_settings_that_accept_them():
    error = refusal(PLANTS, ["healthy", "unhealthy"])
    assert "'Apple___scab' (1 image, first: Apple___scab/1.jpg)" in str(error)
    assert error.proposals == [{"classes": "auto"}, {"classes": TWO}]


def test_two_classes_are_not_proposed_without_a_healthy_name():
    assert refusal(["a", "b", "c"], ["x", "y"]).proposals == [{"classes": "auto"}]
    assert refusal(["a_healthy", "a_unhealthy", "c"], ["x", "y"]).proposals == [{"classes": "auto"}]


def test_name_without_a_matching_pattern_is_rejected():
    assert "'b' (1 image, first: b/1.jpg): matched by no pattern in" in str(
        refusal(["a", "b"], {"one": ["a"], "two": ["c"]})
    )


def test_a_class_without_an_image_is_reported():
    assert "no image of the class c" in str(refusal(["a", "b"], ["a", "b", "c"]))


def test_a_single_class_is_rejected():
    assert "all images have the same class, 'a'" in str(refusal(["a", "a"]))


def test_error_for_excluding_all_classes_names_the_key():
    assert "`ignore`" in str(refusal(["a", "b"], "auto", ["*"]))
