import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from leaf.clean import groups


def test_group_is_identified_by_its_smallest_image_number() -> None:
    assert groups.components(5, np.array([[3, 1], [4, 3]])).tolist() == [0, 1, 2, 1, 1]


def test_long_chain_is_one_group() -> None:
    chain = np.arange(5000)[::-1]
    assert (groups.components(5001, np.stack([chain, chain + 1], axis=1)) == 0).all()


def test_image_without_pairs_is_its_own_group() -> None:
    assert groups.components(3, np.empty((0, 2), np.int64)).tolist() == [0, 1, 2]


def test_only_nonempty_equal_names_are_paired() -> None:
    assert groups.same_name_pairs(np.array(["a", "", "b", "a", ""], object)).tolist() == [[0, 3]]


def test_exact_copy_refers_to_the_first_image_with_its_hash() -> None:
    assert groups.first_copies(["x", "y", "x", "x"]).tolist() == [0, 1, 0, 0]


@given(st.integers(1, 12), st.data())
@settings(max_examples=50, deadline=None)
def test_groups_do_not_depend_on_row_order(count: int, data: st.DataObject) -> None:
    place = st.integers(0, count - 1)
    pairs = np.array(data.draw(st.lists(st.tuples(place, place), max_size=12)), np.int64).reshape(-1, 2)
    order = np.array(data.draw(st.permutations(range(count))))
    plain = groups.components(count, pairs)
    moved = groups.components(count, order[pairs])
    same = plain[:, None] == plain[None, :]
    np.testing.assert_array_equal(same, moved[order][:, None] == moved[order][None, :])
