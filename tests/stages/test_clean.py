"""Test the `clean` stage, from ingested images to tables."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from leaf.clean import clean as cleaning
from leaf.errors import LeafError
from leaf.ingest import ingest as reading
from leaf.params import Params
from stages import clean
from stages import ingest as ingest_stage
from tests.clean.lookalikes import jpeg, leaf_strip, paper

ROOT = Path(__file__).resolve().parents[2]
Ingest = Callable[..., None]


@pytest.fixture
def ingest(workspace: Path) -> Ingest:
    """Return a function that writes ingested images and parameters: `ingest(images, labels, **params)`."""

    def ingest(images: np.ndarray, labels: np.ndarray, **params: object) -> None:
        Path("params.yaml").write_text(json.dumps(params))
        Path("data/ingested").mkdir(parents=True)
        Path("data/references").mkdir()
        Path("data/overrides.csv").write_text("hash,ruling,label,who,why\n")
        Path("data/ingested/classes.csv").write_text("label,name,images\n0,healthy,1\n1,unhealthy,1\n")
        np.save("data/ingested/images.npy", images)
        index = pd.DataFrame({"image": np.arange(len(images)), "source": np.arange(len(images)), "label": labels})
        index[["group", "split"]] = ""
        index["hash"] = [hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images]
        index["flags"] = ""
        index.to_csv("data/ingested/index.csv", index=False)

    return ingest


@pytest.fixture
def images() -> np.ndarray:
    """Return thirty distinct images, then nine copies of the fourth and one of the first, uint8 (40,32,32,3)."""
    coarse = np.random.default_rng(4).integers(0, 256, (30, 4, 4, 3), dtype=np.uint8)
    distinct = coarse.repeat(8, axis=1).repeat(8, axis=2)
    return np.concatenate([distinct, distinct[[3] * 9 + [0]]])


def metrics() -> dict[str, int]:
    return json.loads(Path("metrics/clean.json").read_text())


@pytest.mark.parametrize("column", ["source", "split"])
def test_an_index_without_a_required_column_is_rejected(ingest: Ingest, images: np.ndarray, column: str) -> None:
    ingest(images, np.arange(40) % 2)
    path = Path("data/ingested/index.csv")
    pd.read_csv(path).drop(columns=column).to_csv(path, index=False)
    with pytest.raises(LeafError, match=rf"index\.csv: no column {column}"):
        clean.main()


def test_stage_writes_its_tables_and_the_expected_counts(ingest: Ingest, images: np.ndarray) -> None:
    ingest(images, np.arange(40) % 2)
    clean.main()
    assert set(metrics()) == {
        *("outliers", "duplicates", "near_duplicates", "conflicts", "after_outliers"),
        *("after_outliers_classes", "kept", "kept_classes"),
    }
    assert (metrics()["outliers"], metrics()["duplicates"], metrics()["kept"]) == (10, 1, 29)
    header = "image,label,kept,reason,reference,distance,group,copy_of,ruling"
    lines = Path("data/cleaned/decisions.csv").read_text().splitlines()
    assert (lines[0], lines[4], lines[40]) == (header, "3,1,0,outlier,3,0.0,3,,", "39,1,0,duplicate,,,0,0,")
    distances = Path("data/cleaned/distances.csv").read_text()
    assert distances.startswith("reference,rank,image,distance,outlier\n3,1,3,0.0,1\n")
    assert Path("data/cleaned/pairs.csv").read_text().startswith("image,other,kind,mse,transform,aligned_mse\n")


def test_reference_file_is_converted_as_in_ingest(ingest: Ingest, images: np.ndarray) -> None:
    ingest(images, np.arange(40) % 2, references=["odd.png"])
    large = np.pad(images[3].repeat(4, axis=0).repeat(4, axis=1), ((0, 0), (30, 30), (0, 0)))
    Image.fromarray(large).save("data/references/odd.png")
    clean.main()
    assert metrics()["outliers"] == 10


@pytest.mark.parametrize("name", ["absent.png", "../ingested/index.csv", "."])
def test_missing_reference_file_is_rejected(ingest: Ingest, images: np.ndarray, name: str) -> None:
    ingest(images, np.arange(40) % 2, references=[name])
    with pytest.raises(LeafError, match=r"^references: data/references"):
        clean.main()


def test_reference_file_that_is_not_an_image_is_rejected(ingest: Ingest, images: np.ndarray) -> None:
    ingest(images, np.arange(40) % 2, references=["odd.png"])
    Path("data/references/odd.png").write_text("not an image")
    with pytest.raises(LeafError, match=r"references: data/references/odd\.png: text"):
        clean.main()


def test_overrides_take_precedence_over_automatic_decisions(ingest: Ingest, images: np.ndarray) -> None:
    ingest(images, np.arange(40) % 2)
    hashes = pd.read_csv("data/ingested/index.csv")["hash"]
    with Path("data/overrides.csv").open("a") as file:
        file.write(f"{hashes[3]},keep,,A. Person,a leaf after all\n{hashes[5]},relabel,healthy,A. Person,no spot\n")
    clean.main()
    decisions = pd.read_csv("data/cleaned/decisions.csv", keep_default_na=False)
    assert decisions["reason"][3] == "override"
    assert (decisions["reason"][5], decisions["label"][5]) == ("relabelled", 0)
    assert metrics()["outliers"] == 0


def test_override_of_a_missing_image_is_counted_and_skipped(
    ingest: Ingest, images: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    ingest(images, np.arange(40) % 2)
    Path("data/overrides.csv").write_text(f"hash,ruling,label,who,why\n{'0' * 32},drop,,me,\n5,drop,,me,source 5\n")
    clean.main()
    said = capsys.readouterr().out
    assert "warning: data/overrides.csv: line 2: no image has the file_hash, source or hash '000" in said
    assert "overrides: 1 applied, 1 skipped " in said
    assert metrics()["kept"] == 28


def test_override_by_file_hash_survives_other_sizes_classes_and_names(tmp_path: Path) -> None:
    folder = tmp_path / "leaves"
    for number, name in enumerate(["apple rust", "apple rust", "healthy", "healthy"]):
        (folder / name).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{number}.png")
    found = []
    for size, classes in ((32, "auto"), (48, {"sick": ["* rust"], "well": ["healthy"]})):
        index = reading.ingest(folder, tmp_path / "images.npy", classes, size).index
        if not found:
            overrides = pd.DataFrame([{"hash": index["file_hash"][1], "ruling": "drop"}])
            (folder / "apple rust/1.png").rename(folder / "apple rust/another name.png")
        images = np.load(tmp_path / "images.npy")
        cleaned = cleaning.clean(images, index, [], overrides, Params())
        found.append((index["source"][np.flatnonzero(cleaned.decisions["kept"] == 0)[0]], cleaned.overrides.applied))
    assert found == [("apple rust/1.png", 1), ("apple rust/another name.png", 1)]


def test_overrides_without_their_columns_are_rejected(ingest: Ingest, images: np.ndarray) -> None:
    ingest(images, np.arange(40) % 2)
    Path("data/overrides.csv").write_text("hash,verdict\n")
    with pytest.raises(LeafError, match=r"data/overrides\.csv: no column ruling"):
        clean.main()


def test_index_of_the_wrong_length_is_rejected(ingest: Ingest, images: np.ndarray) -> None:
    ingest(images, np.arange(40) % 2)
    np.save("data/ingested/images.npy", images[:39])
    with pytest.raises(LeafError, match=r"40 .*39"):
        clean.main()


def test_course_proportions_give_the_course_counts(ingest: Ingest) -> None:
    """Use 3,199 healthy and 2,001 unhealthy images, with 98 copies each of two outliers and 154 further copies."""
    rng = np.random.default_rng(58)
    distinct = rng.integers(0, 256, (4852, 4, 4, 3), dtype=np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    healthy, unhealthy = distinct[:3060], distinct[3060:4850]
    outliers = [image.repeat(98, 0) for image in (distinct[4850:4851], distinct[4851:])]
    parts = [healthy, healthy[:41], unhealthy, unhealthy[:113], *outliers]
    labels = np.repeat([0, 0, 1, 1, 1, 0], [len(part) for part in parts])
    order = rng.permutation(5200)
    ingest(np.concatenate(parts)[order], labels[order], same_photo=False)
    clean.main()
    counts = metrics()
    assert (counts["after_outliers"], *counts["after_outliers_classes"].values()) == (5004, 3101, 1903)
    assert (counts["kept"], *counts["kept_classes"].values()) == (4850, 3060, 1790)


@pytest.mark.realdata
@pytest.mark.slow
def test_numbered_references_give_the_expected_counts(ingest: Ingest, shared: Path, tmp_path: Path) -> None:
    read = reading.ingest(shared / "leaves_1041.npz", tmp_path / "read.npy", ("healthy", "unhealthy"), 96)
    ingest(np.load(tmp_path / "read.npy"), read.index["label"].to_numpy(), references=[42, 137])
    clean.main()
    counts = metrics()
    assert (counts["outliers"], counts["duplicates"], counts["near_duplicates"]) == (40, 31, 0)
    assert (counts["kept"], *counts["kept_classes"].values()) == (970, 612, 358)


def test_overrides_saved_by_a_spreadsheet_are_read(ingest: Ingest, images: np.ndarray) -> None:
    ingest(images[:30], np.arange(30) % 2)
    text = "hash;ruling;label;who;why;;\n;;;;;;\n7;Drop;;Jörg;a hand;;\n\n;;;;\n8;nothing;;;;;\n"
    Path("data/overrides.csv").write_text(text, encoding="cp1252")
    with pytest.raises(LeafError, match=r"line 6: .*'nothing'"):
        clean.main()
    Path("data/overrides.csv").write_text(text.replace("8;nothing", ";"), encoding="cp1252")
    clean.main()
    decisions = pd.read_csv("data/cleaned/decisions.csv")
    assert decisions.loc[decisions["reason"].eq("override"), "image"].tolist() == [7]


@pytest.mark.parametrize(("fit", "draw"), [("pad", leaf_strip), ("crop", paper)])
def test_folder_of_different_leaves_with_equal_padding_or_paper_loses_only_copies(
    workspace: Path, capsys: pytest.CaptureFixture[str], fit: str, draw: Callable[[np.random.Generator], np.ndarray]
) -> None:
    rng = np.random.default_rng(1)
    for name in ("healthy", "unhealthy"):
        (workspace / "leaves" / name).mkdir(parents=True)
        for number in range(20):
            image = draw(rng)
            Image.fromarray(image).save(workspace / "leaves" / name / f"{number}.png")
            if name == "healthy" and number < 2:
                Image.fromarray(jpeg(image, 80)).save(workspace / "leaves" / name / f"copy of {number}.png")
    Path("params.yaml").write_text(json.dumps({"dataset": "leaves", "fit": fit}))
    Path("data/masks").mkdir(parents=True)
    for name in ("labels.csv", "overrides.csv"):
        shutil.copy(ROOT / "data" / name, "data")
    ingest_stage.main()
    clean.main()
    assert (metrics()["near_duplicates"], metrics()["outliers"], metrics()["kept"]) == (2, 0, 40)
    warned = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: class ")]
    assert [line.partition(" removed ")[0] for line in warned] == ["warning: class healthy: 2 of 22 images (9.1%)"]
