"""The Sankey diagram and the class balance count every image once."""

from collections import Counter

from leaf.finished_run import Run
from leaf.report.sankey import balance_rows, graph


def test_inflow_of_each_node_equals_its_outflow(tables):
    nodes, links = graph(Run(**tables()))
    into, out = Counter(), Counter()
    for link in links:
        out[link.source] += sum(link.counts)
        into[link.target] += sum(link.counts)
    ends = {place for place, node in enumerate(nodes) if place not in out}
    assert all(out[place] == sum(node.counts) for place, node in enumerate(nodes) if place not in ends)
    assert all(into[place] == sum(nodes[place].counts) for place in into)


def test_every_image_ends_in_exactly_one_node(tables):
    made = tables(smote=False)
    nodes, links = graph(Run(**made))
    sources = {link.source for link in links}
    ends = sum(sum(node.counts) for place, node in enumerate(nodes) if place not in sources)
    assert ends == len(made["images"])


def test_synthetic_images_balance_the_training_classes(tables):
    rows = dict(balance_rows(Run(**tables())))
    first, second = rows["Train, with synthetic images"]
    assert first == second


def test_no_synthetic_step_without_synthetic_images(tables):
    assert "Train, with synthetic images" not in dict(balance_rows(Run(**tables(smote=False))))


def test_unknown_removal_reason_has_its_own_node(tables):
    made = tables()
    made["decisions"]["reason"] = made["decisions"]["reason"].replace("duplicate", "too_small")
    assert "Too small" in {node.name for node in graph(Run(**made))[0]}
