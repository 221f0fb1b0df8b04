from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from leaf.cli import app
from leaf.errors import LeafError
from leaf.why import explain

INDEX = """image,source,label,group,split,hash,file_hash,flags
0,healthy/a.jpg,0,,,aaaa,f0,
1,healthy/b.jpg,0,plant 7,,bbbb,f1,dark blurred
2,unhealthy/a.jpg,1,,,aaaa,f2,
3,unhealthy/12.jpg,1,,,cccc,f3,
4,unhealthy/toon.jpg,1,,,dddd,f4,
"""
DECISIONS = """image,label,kept,reason,reference,distance,group,copy_of
0,0,1,,,,0,
1,0,0,near_duplicate,,,0,0
2,0,0,duplicate,,,0,0
3,1,1,relabelled,,,3,
4,1,0,outlier,toon.png,12.5,4,
"""
PAIRS = """image,other,kind,mse,transform,aligned_mse
0,2,exact,0.0,,
0,1,near,31.25,,
0,3,aligned,330.0,,14.5
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project folder after ingest and clean."""
    for name, text in {
        "data/ingested/classes.csv": "label,name,images\n0,healthy,3\n1,unhealthy,2\n",
        "data/overrides.csv": "hash,ruling,label,who,why\nCCCC,relabel,unhealthy,A. Person,spots on the rim\n",
        "data/ingested/index.csv": INDEX,
        "data/cleaned/decisions.csv": DECISIONS,
        "data/cleaned/pairs.csv": PAIRS,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def finish(project: Path) -> Path:
    """Return a project folder with the tables of all stages."""
    for name, text in {
        "data/split/splits.csv": "image,split\n0,train\n3,test\n",
        "data/balanced/index.csv": "image,label,parent,neighbour,weight\n0,1,0,3,0.5\n1,1,0,0,0.25\n2,1,3,0,0.5\n",
        "data/scored/predictions.csv": "image,source,split,label,predicted,probability\n3,d,test,1,0,0.25\n",
    }.items():
        (project / name).parent.mkdir(parents=True)
        (project / name).write_text(text)
    return project


def test_image_is_found_by_number_source_or_unique_end_of_its_source(project: Path) -> None:
    assert explain("1", project) == explain("healthy/b.jpg", project) == explain("b.jpg", project)
    assert explain("1", project).startswith(
        "image    1, source healthy/b.jpg, ingested as healthy\nhash     file f1, pixels bbbb"
    )


def test_number_is_interpreted_as_an_image_number_first(project: Path) -> None:
    assert "source unhealthy/a.jpg" in explain("2", project)
    assert "image    3," in explain("12.jpg", project)


@pytest.mark.parametrize("image", ["5", "z.jpg", "-1", "²"])
def test_unknown_image_raises_a_one_line_error(image: str, project: Path) -> None:
    with pytest.raises(LeafError, match=f"why: .*{image}.*0 to 4"):
        explain(image, project)


def test_ambiguous_name_is_rejected_with_both_images(project: Path) -> None:
    with pytest.raises(LeafError, match=r"a\.jpg.*healthy/a\.jpg, unhealthy/a\.jpg"):
        explain("a.jpg", project)


def test_flags_and_specified_group_are_printed(project: Path) -> None:
    told = explain("1", project)
    assert "flags    dark, blurred" in told
    assert "group    plant 7, given with the data set" in told


@pytest.mark.parametrize(
    ("image", "line"),
    [
        ("0", "clean    kept as healthy\n"),
        ("1", "clean    removed: near duplicate of image 0, which is kept\n"),
        ("2", "clean    removed: copy of image 0, which is kept\n"),
        ("3", "clean    kept as unhealthy: new label"),
        ("4", "clean    removed: outlier, 12.5 (mean squared error) from reference toon.png\n"),
    ],
)
def test_decision_is_printed_with_its_reason(image: str, line: str, project: Path) -> None:
    assert line in explain(image, project)


def test_group_and_each_kind_of_pair_are_printed(project: Path) -> None:
    told = explain("0", project)
    assert "in group 0 with 2 other images: 0, 1, 2" in told
    assert "exact pairs: 2\n" in told
    assert "near pairs (mean squared error): 1 (31.2)\n" in told
    assert "aligned pairs (mean squared error): 3 (14.5)\n" in told


def test_override_is_printed_with_author_and_reason(project: Path) -> None:
    assert "override relabel unhealthy, by A. Person: spots on the rim" in explain("3", project)


@pytest.mark.parametrize("name", ["F2", "unhealthy/a.jpg", "aaaa"])
def test_override_of_a_copy_is_printed_for_the_image(project: Path, name: str) -> None:
    (project / "data/overrides.csv").write_text(f"hash,ruling,label,who,why\n{name},drop,,A. Person,a hand\n")
    assert "override drop, by A. Person: a hand" in explain("0", project)


def test_missing_stages_are_listed(project: Path) -> None:
    told = explain("0", project)
    assert "split    not run yet (data/split/splits.csv is missing)" in told
    (project / "data/cleaned/decisions.csv").unlink()
    assert "clean    not run yet" in explain("0", project)


def test_split_synthetic_images_and_prediction_are_printed(project: Path) -> None:
    told = explain("3", finish(project))
    assert "split    test\n" in told
    assert "balance  parent of 1 synthetic image: row 2; neighbor of 1 synthetic image: row 0\n" in told
    assert "scored   predicted healthy, wrong: the label is unhealthy; probability of unhealthy 0.250" in told


def test_three_most_probable_classes_are_printed(project: Path) -> None:
    finish(project)
    (project / "data/ingested/classes.csv").write_text("label,name,images\n0,rust,1\n1,scab,2\n2,spot,1\n3,rot,1\n")
    np.save(project / "data/scored/probabilities.npy", np.array([[0.5, 0.25, 0.05, 0.2]], np.float32))
    assert "predicted rust, wrong: the label is scab; probability of rust 0.500, scab 0.250, rot 0.200" in explain(
        "3", project
    )


def test_removed_image_has_no_split_and_no_prediction(project: Path) -> None:
    told = explain("4", finish(project))
    assert "split    none: the image was not kept" in told
    assert "balance  not used for synthetic images" in told
    assert "scored   not predicted" in told


def test_command_prints_the_lines(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    assert CliRunner().invoke(app, ["why", "healthy/b.jpg"]).output == explain("1") + "\n"
