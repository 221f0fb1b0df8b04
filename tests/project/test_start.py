"""`leaf start` recognizes layouts and proposes classes, groups, image size and recipes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from leaf import params
from leaf.errors import LeafError
from leaf.project.init import write_files
from leaf.project.start import estimate, propose, start

Images = Callable[..., Path]


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Images:
    """Create a project in the working folder; return a function that writes folders of six images, 200×150 pixels."""
    (tmp_path / "project").mkdir()
    write_files(tmp_path / "project", {})
    monkeypatch.chdir(tmp_path / "project")

    def make(*folders: str, count: int = 6) -> Path:
        random = np.random.default_rng(0)
        for folder in folders:
            (tmp_path / "images" / folder).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (150, 200, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / folder / f"{folder.replace('/', '-')}{number}.png")
        return tmp_path / "images"

    return make


def question(key: str, dataset: Path, **settings: Any) -> list[dict[str, Any]]:
    """Return the settings of each option of a question, the recommended one first; [] if it is not asked."""
    found = [each for each in propose(dataset, settings).questions if each.key == key]
    return [dict(option.settings) for option in found[0].options] if found else []


def accepted(dataset: Path, **settings: Any) -> dict[str, Any]:
    """Accept every proposal and return params.yaml with the recipe."""
    recipe, run = start(propose(dataset, settings), lambda question: question.options[0])
    return yaml.safe_load(Path("params.yaml").read_text()) | run | {"recipe": recipe}


def test_class_folders_are_the_classes(images: Images) -> None:
    dataset = images("rust", "healthy", "scab")
    assert accepted(dataset)["classes"] == ["healthy", "rust", "scab"]
    assert {"healthy": ["*healthy"], "unhealthy": ["*"]} in [each["classes"] for each in question("classes", dataset)]


def test_crops_that_share_a_class_name_get_classes_per_crop_and_disease(images: Images) -> None:
    dataset = images("Bean/healthy", "Bean/rust", "Chilli/healthy", "Chilli/leaf curl")
    assert [each["classes"] for each in question("classes", dataset)] == [
        ["Bean healthy", "Chilli healthy", "Bean rust", "Chilli leaf curl"],
        ["healthy", "leaf curl", "rust"],
        ["Bean", "Chilli"],
    ]


def test_merging_classes_of_two_crops_is_a_warning(images: Images) -> None:
    dataset = images("Bean/healthy", "Bean/rust", "Chilli/healthy", "Chilli/leaf curl")
    pairs, diseases, _ = propose(dataset, {}).questions[0].options
    assert "merges 'healthy'" in diseases.text
    assert "merges" not in pairs.text


def test_crops_without_a_common_class_use_the_inner_folders_as_classes(images: Images) -> None:
    dataset = images("Bean/bean spot", "Bean/rust", "Chilli/curl", "Chilli/mosaic")
    assert accepted(dataset)["classes"] == ["bean spot", "curl", "mosaic", "rust"]


def test_places_with_the_same_classes_are_merged(images: Images) -> None:
    dataset = images("north/healthy", "north/rust", "south/healthy", "south/rust")
    assert accepted(dataset)["classes"] == ["healthy", "rust"]


def test_copies_of_the_data_set_are_alternatives(images: Images) -> None:
    dataset = images("color/healthy", "color/rust")
    shutil.copytree(dataset / "color", dataset / "gray")
    options = question("classes", dataset)
    assert [each["dataset"] for each in options] == [str(dataset / "color"), str(dataset / "gray")]
    assert accepted(dataset)["classes"] == ["healthy", "rust"]


def test_classes_may_be_three_folders_deep(images: Images) -> None:
    dataset = images("2021/north/healthy", "2021/north/rust", "2022/south/healthy", "2022/south/rust")
    assert accepted(dataset)["classes"] == ["healthy", "rust"]


def test_notes_about_the_data_set_are_shown(images: Images) -> None:
    lines = propose(images("Bean/Healthy", "Bean/rust", "Corn/healthy", "Corn/blight"), {}).lines
    assert any(line.startswith("note: ") and "Healthy" in line for line in lines)


def test_crops_before_three_underscores_may_be_merged(images: Images) -> None:
    dataset = images("Bean___healthy", "Bean___rust", "Corn___healthy", "Corn___rust")
    merged = question("classes", dataset)[1]["classes"]
    assert merged == {"healthy": ["*___healthy"], "rust": ["*___rust"]}


def test_numbered_folders_below_the_class_are_groups(images: Images) -> None:
    dataset = images("mild/plant_1", "mild/plant_2", "severe/plant_3", "severe/plant_4")
    chosen = accepted(dataset)
    assert (chosen["classes"], chosen["group_by"]) == (["mild", "severe"], "folder")
    assert question("groups", dataset) == [{"group_by": "folder"}, {"group_by": "none"}]


def test_split_folders_are_used(images: Images) -> None:
    dataset = images("train/a", "train/b", "val/a", "val/b", "test/a", "test/b")
    assert accepted(dataset)["classes"] == ["a", "b"]
    assert "splits: test, train, validation, defined by the data set" in propose(dataset, {}).lines


def test_table_next_to_the_images_defines_the_classes(images: Images) -> None:
    dataset = images("images")
    names = sorted(path.name for path in (dataset / "images").iterdir())
    rows = "".join(f"{name},{'ab'[number % 2]}\n" for number, name in enumerate(names))
    (dataset / "train.csv").write_text(f"file,label\n{rows}")
    chosen = accepted(dataset)
    assert chosen["classes"] == ["a", "b"]
    assert chosen["labels"] == str(dataset / "train.csv")


def test_next_data_set_does_not_use_the_previous_label_table(images: Images) -> None:
    dataset = images("images")
    names = sorted(path.name for path in (dataset / "images").iterdir())
    rows = "".join(f"{name},{'ab'[number % 2]},{'xy'[number % 2]}\n" for number, name in enumerate(names))
    (dataset / "train.csv").write_text(f"file,first,second\n{rows}")
    accepted(dataset, **{"columns.label": "second"})
    chosen = params.load()
    assert (chosen.labels, chosen.columns.label, chosen.classes) == (str(dataset / "train.csv"), "second", ["x", "y"])
    shutil.rmtree(dataset)
    accepted(images("healthy", "rust"))
    assert (params.load().labels, params.load().columns.label) == ("data/labels.csv", "")


def test_image_size_of_pretrained_recipes_depends_on_the_images(images: Images) -> None:
    sizes = {each["recipe"]: each["image_size"] for each in question("recipe", images("a", "b"))}
    assert sizes == {"probe": 128, "transfer": 128, "default": 96}


def test_settings_replace_proposals(images: Images) -> None:
    dataset = images("a", "b", "c")
    chosen = accepted(dataset, classes=["a", "b"], ignore=["c"], image_size=64)
    assert (chosen["classes"], chosen["ignore"], chosen["image_size"]) == (["a", "b"], ["c"], 64)


def test_at_most_three_questions_are_asked(images: Images) -> None:
    dataset = images(
        *(f"{crop}/{name}/plant_{n}" for crop in ("Bean", "Corn") for name in ("healthy", "rust") for n in "12")
    )
    assert [each.key for each in propose(dataset, {}).questions] == ["classes", "groups", "recipe"]


def test_params_yaml_keeps_its_comments(images: Images) -> None:
    accepted(images("a", "b"))
    text = Path("params.yaml").read_text()
    assert text.count("# ") > 70
    assert params.load().classes == ["a", "b"]


def test_invalid_setting_writes_nothing(images: Images) -> None:
    dataset, before = images("a", "b"), Path("params.yaml").read_text()
    with pytest.raises(LeafError, match="dropout"):
        accepted(dataset, dropout=0.2)  # a linear probe requires dropout 0
    assert Path("params.yaml").read_text() == before


def test_missing_folder_is_named_in_the_error(images: Images, tmp_path: Path) -> None:
    Path("data/labels.csv").write_text("file,label\na.png,a\n")
    with pytest.raises(LeafError, match="nowhere: no such file or folder"):
        propose(tmp_path / "nowhere", {})


def test_estimate_grows_with_images_and_size() -> None:
    small = params.Params()
    large = params.Params(image_size=192)
    assert estimate(small, 1000) < estimate(small, 2000) < estimate(large, 2000)
