"""Unlabeled images are counted, stored and excluded from all splits. Labels are matched by file hash."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from leaf.ingest.decode_cache import content_hash
from leaf.ingest.ingest import Ingested, ingest
from leaf.ingest.unlabelled import read_given
from leaf.split.stratified_split import add_chosen

HEADER = "file,label,group,split,file_hash,who,date,run,chosen\n"


def draw(path: Path, seed: int) -> str:
    """Write a random image file and return its hash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (20, 20, 3), np.uint8))
    return content_hash(path.read_bytes())


def label(file_hash: str, name: str, who: str = "Ada", chosen: str = "random", group: str = "") -> str:
    return f"x.png,{name},{group},,{file_hash},{who},2026-01-01T00:00:00Z,,{chosen}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a data set with two labeled images and one unlabeled image, and a folder with two new images."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("d/healthy/a.png", "d/unhealthy/b.png", "d/new.png", "more/c.png", "more/e.png")):
        draw(Path(name), seed)
    Path("data").mkdir()
    Path("data/labels.csv").write_text(HEADER)
    return tmp_path


def read(**options: object) -> Ingested:
    return ingest(
        "d", "images.npy", ("healthy", "unhealthy"), 16, labels="data/labels.csv", unlabelled=Path("more"),
        unlabelled_path="new.npy", **options,
    )  # fmt: skip


def test_unlabeled_images_are_stored_separately(folder: Path) -> None:
    made = read()
    assert made.index["source"].tolist() == ["healthy/a.png", "unhealthy/b.png"]
    assert made.unlabelled["source"].tolist() == ["new.png", "more/c.png", "more/e.png"]
    assert np.load("new.npy").shape == (3, 16, 16, 3)
    assert np.load("images.npy").shape == (2, 16, 16, 3)


def test_data_set_without_unlabeled_images_gives_an_empty_table(folder: Path) -> None:
    Path("d/new.png").unlink()
    made = ingest("d", "images.npy", "auto", 16, unlabelled_path="new.npy")
    assert len(made.unlabelled) == 0
    assert np.load("new.npy").shape == (0, 16, 16, 3)


def test_label_follows_a_renamed_file(folder: Path) -> None:
    digest = draw(Path("more/c.png"), 3)
    Path("data/labels.csv").write_text(HEADER + label(digest, "unhealthy", group="plant 7"))
    Path("more/c.png").rename("more/z.png")
    made = read()
    assert made.index["source"].tolist() == ["healthy/a.png", "unhealthy/b.png", "more/z.png"]
    assert made.index.iloc[2][["label", "group", "chosen"]].tolist() == [1, "plant 7", "random"]
    assert (np.load("images.npy")[2] != np.load("images.npy")[0]).any()
    assert made.unlabelled["source"].tolist() == ["new.png", "more/e.png"]


def test_flags_of_a_labeled_animation_do_not_change_in_later_runs(folder: Path) -> None:
    frames = [Image.fromarray(np.full((20, 20, 3), value, np.uint8)) for value in (100, 200)]
    frames[0].save("more/f.gif", save_all=True, append_images=frames[1:])
    digest = content_hash(Path("more/f.gif").read_bytes())
    Path("data/labels.csv").write_text(HEADER + label(digest, "healthy"))
    first, second = (read(aside=folder / "aside").index for _ in range(2))
    assert first["flags"].iloc[-1].split().count("first_frame") == 1
    assert second["flags"].tolist() == first["flags"].tolist()


def test_row_without_a_label_excludes_the_image(folder: Path) -> None:
    Path("data/labels.csv").write_text(HEADER + label(draw(Path("more/c.png"), 3), ""))
    made = read()
    assert len(made.index) == 2
    assert len(made.unlabelled) == 2
    assert made.unreadable.set_index("file").loc["more/c.png", "reason"] == "excluded in data/labels.csv"


def test_image_with_conflicting_labels_stays_unlabeled_until_a_decision(folder: Path) -> None:
    digest = draw(Path("more/c.png"), 3)
    both = label(digest, "healthy") + label(digest, "unhealthy", "Bob")
    Path("data/labels.csv").write_text(HEADER + both)
    assert read().conflicts == 1
    assert read_given() == ({}, {digest: ["healthy", "unhealthy"]})
    Path("data/labels.csv").write_text(HEADER + both + label(digest, "unhealthy", chosen="conflict"))
    assert read().index["label"].tolist() == [0, 1, 1]


def test_label_of_an_unknown_class_is_reported_and_not_used(folder: Path) -> None:
    Path("data/labels.csv").write_text(HEADER + label(draw(Path("more/c.png"), 3), "sick"))
    made = read()
    assert len(made.index) == 2
    assert [note for note in made.notes if "'sick'" in note]


def test_image_is_random_only_if_all_its_labels_are(folder: Path) -> None:
    Path("data/labels.csv").write_text(HEADER + label("aa", "healthy") + label("aa", "healthy", "Bob", "model"))
    assert read_given()[0]["aa"].chosen == "model"


def test_chosen_images_join_the_split_of_their_group_or_train() -> None:
    splits = pd.DataFrame({"image": [0, 1], "split": ["test", "train"]})
    images = pd.DataFrame({"image": [0, 1], "group": [0, 1]})
    chosen = pd.DataFrame({"image": [2, 3], "group": [0, 3]})
    assert add_chosen(splits, images, chosen)["split"].tolist() == ["test", "train", "test", "train"]


def test_new_images_follow_the_images_of_an_npz(folder: Path) -> None:
    images = np.random.default_rng(9).integers(0, 256, (4, 16, 16, 3)).astype(np.float32)
    np.savez("d.npz", data=images, labels=np.array(["healthy", "unhealthy"] * 2))
    Path("data/labels.csv").write_text(HEADER + label(draw(Path("more/c.png"), 3), "healthy"))
    made = ingest(
        "d.npz", "images.npy", ("healthy", "unhealthy"), 16, labels="data/labels.csv", unlabelled=Path("more"),
        unlabelled_path="new.npy",
    )  # fmt: skip
    assert made.index["source"].tolist() == ["0", "1", "2", "3", "more/c.png"]
    assert made.index["label"].tolist() == [0, 1, 0, 1, 0]
