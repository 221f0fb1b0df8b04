"""Groups from what images look like: planted leaves are found, given groups stay whole."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from leaf.errors import LeafError
from leaf.splitting import clustering
from leaf.splitting.clustering import cluster_groups

LEAF = np.repeat(np.arange(20), 4)


@pytest.fixture(scope="module")
def views():
    """Features and colours of 20 leaves, four views each: a view differs less from its leaf than leaves do."""
    random = np.random.default_rng(0)
    return [
        np.repeat(random.normal(size=(20, width)), 4, axis=0) + random.normal(scale=0.3, size=(80, width))
        for width in (64, 32)
    ]


def test_views_of_one_leaf_share_a_cluster(views):
    found = cluster_groups(np.arange(80), *views)
    assert adjusted_rand_score(LEAF, found) > 0.95


def test_a_cluster_is_named_by_its_smallest_group(views):
    found = cluster_groups(np.arange(80), *views)
    assert all(found[found == name].size and name == np.flatnonzero(found == name)[0] for name in np.unique(found))


def test_a_given_group_stays_whole_whatever_it_looks_like(views):
    given = np.arange(80)
    given[[0, 79]] = 0
    found = cluster_groups(given, *views)
    assert found[0] == found[79]


def test_features_without_leaves_in_them_are_not_joined():
    random = np.random.default_rng(1)
    found = cluster_groups(np.arange(60), random.normal(size=(60, 64)), random.normal(size=(60, 32)))
    assert len(np.unique(found)) > 50


def test_more_groups_than_memory_holds_are_refused(views, monkeypatch):
    monkeypatch.setattr(clustering, "MOST_GROUPS", 79)
    with pytest.raises(LeafError, match="group_by: features, and there are 80 groups; valid up to 79"):
        cluster_groups(np.arange(80), *views)
