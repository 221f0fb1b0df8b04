"""Fixtures: tables and pages of finished runs."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from leaf.evaluate.model_comparison import Comparison
from leaf.finished_run import Run
from leaf.params import keys
from leaf.report.audit import IN_FILE, IN_PIXELS, audit_summary
from leaf.report.render import render, render_summary
from leaf.report.side_by_side import RunSummary, render_side_by_side


@pytest.fixture(scope="session")
def builder():
    """Return tests/report/builder.py as a module."""
    spec = importlib.util.spec_from_file_location("page_builder", Path(__file__).with_name("builder.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def drawn(builder):
    """Return synthetic images with planted copies, and their labels."""
    return builder.drawn()


@pytest.fixture
def tables(builder, drawn):
    """Return a function that creates the tables of a run. Its options leave parts out."""

    def make(**options):
        return builder.tables(*drawn, **options)

    return make


@pytest.fixture(scope="session")
def bare_tables(builder, drawn):
    """Return the tables of a minimal run: one epoch; no test split, copies, outliers, decisions or synthetic images."""
    images, labels = drawn
    first = np.unique(images.reshape(len(images), -1), axis=0, return_index=True)[1]
    return builder.tables(
        images[first],
        labels[first],
        test=False,
        epochs=1,
        smote=False,
        near=0,
        aligned=0,
        overrides=0,
        folders=False,
        params={key: row["default"] for key, row in keys().items()},
    )


@pytest.fixture(scope="session")
def finished(builder, drawn):
    """Return a report with every section."""
    return render(Run(**builder.tables(*drawn)))


@pytest.fixture(scope="session")
def bare(bare_tables):
    """Return the report of the minimal run."""
    return render(Run(**bare_tables))


@pytest.fixture(scope="session")
def extreme(builder, drawn):
    """Return a report with long unbreakable names and a hundred source folders."""
    name = "Unhealthy_according_to_the_second_annotator_of_2019"
    sources = [f"healthy/{'IMG_' * 12}{place}.jpg" for place in range(len(drawn[0]))]
    made = builder.tables(*drawn, sources=sources, epochs=300)
    made["params"] |= {"dataset": "data/raw/" + name * 3}
    made["training"]["classes"] = [name, name[::-1]]
    made["scores"]["by_folder"] = [
        {"folder": f"{name}/{place}", "images": 10**5, "accuracy": 0.5, "low": 0.0, "high": 1.0} for place in range(100)
    ]
    made["training"]["versions"]["backend"] = name * 2
    return render(Run(**made))


def compared(a, b, difference=0.01, error=0.02):
    """Return a comparison of runs `a` and `b` with the given difference in accuracy and its standard error."""
    return Comparison(
        images=99, accuracy=(0.8, 0.8 + difference), only_a=1, only_b=2, error=error, freedom=60, p=0.1, p_holm=0.1,
        a=a, b=b, groups=50,
    )  # fmt: skip


@pytest.fixture(scope="session")
def one_page(builder, drawn):
    """Return the summary of a run with long class names."""
    made = builder.tables(*drawn)
    name = "Tomato___Tomato_Yellow_Leaf_Curl_Virus"
    made["training"]["classes"] = [name, f"{name}_of_the_second_annotator"]
    return render_summary(Run(**made))


@pytest.fixture(scope="session")
def beside(builder, drawn):
    """Return the page that shows four runs side by side."""
    runs = []
    for place, name in enumerate(["workspace", "dropout_02", "feature/a-very-long-branch-name-of-a-person", "cnn"]):
        made = builder.tables(*drawn, seed=place, epochs=5 + 9 * place, params={"dropout": place / 10})
        runs.append(RunSummary(name, made["params"], made["scores"], made["history"], made["training"]))
    verdicts = [
        compared("workspace", run.name, *each)
        for run, each in zip(runs[1:], [(0.01, 0.015), (0.05, 0.017), (-0.12, 0.04)], strict=True)
    ]
    return render_side_by_side(runs, verdicts)


@pytest.fixture(scope="session")
def audited():
    """Return an audit in which every question requires action."""

    def score(value, **more):
        return {"accuracy": value, "low": value - 0.04, "high": value + 0.03, **more}

    def shortcut(value, alarm):
        return score(value, balanced=value - 0.05, majority=0.12, images=680, p=0.001, alarm=alarm)

    long = "Unhealthy_according_to_the_second_annotator_of_2019"
    shares = score(0.9) | {"inside": score(0.9), "outside": score(0.4), "drop": score(0.5), "images": 99}
    shares |= {"majority": 0.6, "balanced_inside": 0.85, "balanced_outside": 0.41}
    return {
        "images": 680,
        "groups": 413,
        "features": "histograms of 512 colors",
        "guessed": True,
        "conflicts": 2,
        "shortcuts": {"majority": score(0.12)}
        | {name: shortcut(0.2 + place / 20, place % 3 > 0) for place, name in enumerate([*IN_PIXELS, *IN_FILE])},
        "model": score(0.88),
        "linear": score(0.87),
        "network": {
            key: score(0.6)
            for key in ("frame", "frame_same", "centre", "colour", "background", "flagged", "corners_flagged")
        }
        | {"unchanged": score(0.88), "frame_use": score(0.3)}
        | {"evidence": {"centre": 0.7, "centre_area": 0.64, "leaf": 0.6, "leaf_area": 0.4}},
        "transport": {"background": {f"{long} {place}": shares for place in range(9)}},
        "new_class": {f"{long} {place}": {"caught": score(place / 9), "auroc": score(0.7)} for place in range(9)},
        "leak": score(
            0.05,
            sentence="For this recipe, leakage raises the accuracy: +5.0 points of accuracy (95% CI +1.0 to +8.0).",
        ),
        "labels": {"suspicious": 12, "images": 680},
        "groups_given": {"without": 680, "of": 680},
        "given_splits": {"images": 680, "photographs": 3, "crops": 1, "groups": 4, "all_crops": 9},
        "dates": [],
        "not_said": ["site", "crop", "camera", "date"],
        "trained": False,
        "without_leaf": {"caught": score(0.5), "auroc": score(0.8), "images": 440},
    }


@pytest.fixture(scope="session")
def audited_page(audited):
    """Return the audit page."""
    return audit_summary(audited)[0]
