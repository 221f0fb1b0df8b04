"""`leaf init` creates a project without overwriting anything."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from leaf import params
from leaf.errors import LeafError
from leaf.project.init import init_project
from leaf.project.pipeline import CODE_FILE, PIPELINE, changed_code, code_hashes, installed_pipeline
from leaf.store import read_json

ROOT = Path(__file__).parents[2]
WRITTEN = {"dvc.yaml", "params.yaml", "runner.yaml", "code.json", ".gitignore", ".gitattributes", ".dvcignore"}
WRITTEN |= {"data", "metrics", "README.md", "requirements.txt", "requirements-gpu.txt", ".git", ".dvc"}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder with two classes of 30 images."""
    rng = np.random.default_rng(0)
    for name in ("rose", "tulip"):
        (tmp_path / "flowers" / name).mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(0, 256, (20, 20, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "flowers" / name / f"{number}.png")
    return tmp_path / "flowers"


def test_pipeline_of_this_repository_is_the_template() -> None:
    assert PIPELINE.read_bytes() == (ROOT / "dvc.yaml").read_bytes()
    ours = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name, stage in installed_pipeline()["stages"].items():
        assert stage["params"] == [*ours[name]["params"], {"code.json": [name]}]
        code = {dep for dep in ours[name]["deps"] if dep.startswith(("leaf/", "stages/"))}
        assert [*stage.get("deps", [])] == [dep for dep in ours[name]["deps"] if dep not in code]
        for key in ("cmd", "outs", "metrics"):
            assert stage.get(key) == ours[name].get(key)


@pytest.mark.slow
def test_new_project_is_accepted_by_dvc_and_leaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init_project(tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} >= WRITTEN
    monkeypatch.chdir(tmp_path / "new")
    assert params.load() == params.Params()
    assert params.read_params("ingest").image_size == 96
    done = subprocess.run(["dvc", "status"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert subprocess.run(["git", "check-ignore", "models", "data/raw/x.npz"], capture_output=True).returncode == 0
    assert changed_code(Path()) == []


@pytest.mark.slow
def test_dataset_fills_in_path_and_classes(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = init_project(tmp_path / "new", images)
    monkeypatch.chdir(tmp_path / "new")
    assert params.load().classes == ["rose", "tulip"]
    assert params.load().dataset == str(images)
    assert "# " in (tmp_path / "new/params.yaml").read_text()
    assert any("rose" in line for line in lines)


def test_rejected_dataset_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "flowers").mkdir()
    with pytest.raises(LeafError, match="flowers"):
        init_project(tmp_path / "new", tmp_path / "flowers")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["dvc.yaml", "params.yaml", "runner.yaml", "code.json", "stages", "leaf"])
def test_existing_project_is_rejected_and_kept(tmp_path: Path, name: str) -> None:
    if "." in name:
        (tmp_path / name).write_text("mine")
    else:
        (tmp_path / name).mkdir()
    with pytest.raises(LeafError, match=name):
        init_project(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.slow
def test_existing_repository_keeps_its_files(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("mine")
    (tmp_path / "README.md").write_text("mine")
    init_project(tmp_path / "classifier")
    init_project(tmp_path)
    lines = (tmp_path / ".gitignore").read_text().splitlines()
    assert lines[0] == "mine"
    assert "/models/" in lines
    assert (tmp_path / "README.md").read_text() == "mine"
    assert (tmp_path / "classifier/.dvc").is_dir()
    assert not (tmp_path / "classifier/.git").exists()


def test_code_file_has_one_hash_per_stage(tmp_path: Path) -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert code_hashes().keys() == stages.keys()
    assert len(set(code_hashes().values())) == len(stages)


@pytest.mark.parametrize("content", ["", "[]", "{", "{}", '{"ingest": 7}'])
def test_damaged_code_file_differs_in_every_stage(tmp_path: Path, content: str) -> None:
    (tmp_path / CODE_FILE).write_text(content)
    assert changed_code(tmp_path) == list(code_hashes())


def test_check_reports_that_the_installed_code_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from leaf.check import check

    init_project(tmp_path / "new")
    monkeypatch.chdir(tmp_path / "new")
    assert "leaf upgrade" not in check({})[1]
    changed = read_json(CODE_FILE) | {"ingest": "0"}
    Path(CODE_FILE).write_text(str(changed).replace("'", '"'))
    assert "code.json: differs from the installed leaf in ingest. Run `leaf upgrade`" in check({})[1]
