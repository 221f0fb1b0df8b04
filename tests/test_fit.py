"""`leaf.fit` runs the stages in a separate folder and returns a model."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import leaf
from leaf import experiments, store
from leaf.errors import LeafError
from leaf.models.build import build_model
from leaf.models.saving import save_model
from leaf.python_api import new_project, run_stages
from leaf.synthesize import ImageCounts, draw_dataset


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """Return a folder with `leaves/`, 124 synthetic leaves and four cartoons, and weights of a small network."""
    folder = tmp_path_factory.mktemp("photographs")
    images, labels = draw_dataset(ImageCounts(62, 62, 2, 0, 0), 32, 7)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        file = folder / "leaves" / ("green", "spotted")[label] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    save_model(build_model("cnn_small", 32, seed=3), folder / "weights.keras")
    return folder


@pytest.mark.slow
def test_fit_returns_a_model_and_writes_tables(photographs, programs, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setenv("LEAF_STATE", str(tmp_path / "state"))
    settings = {"classes": "auto", "backbone": "cnn_small", "image_size": 32, "weights": photographs / "weights.keras"}
    settings["classes"] = ("green", "spotted")
    model = leaf.fit(photographs / "leaves", folder=tmp_path / "run", **settings)
    predictions = pd.read_csv(tmp_path / "run/data/scored/predictions.csv")
    tested = predictions[predictions["split"] == "test"]
    files = [str(photographs / "leaves" / source) for source in tested["source"]]
    given = model.predict(files)
    np.testing.assert_allclose([each.probability for each in given], tested["probability"], atol=1e-4)
    assert {each.label for each in given} <= {"green", "spotted"}
    assert store.read_json(tmp_path / "run/models/run.json")["stopped"] == "converged"
    assert (tmp_path / "run/reports/report.html").read_text().count("A linear probe, fitted to convergence") == 1
    assert list((tmp_path / "state/features").rglob("*.features"))


def test_folder_with_other_files_is_rejected(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(LeafError, match="other files"):
        leaf.fit(tmp_path, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_error_contains_the_name_of_the_failed_stage(tmp_path):
    new_project(tmp_path / "run", experiments.with_settings({}, {"dataset": "nowhere"}))
    with pytest.raises(LeafError, match=r"^ingest: .*nowhere"):
        run_stages(tmp_path / "run", ["ingest"])


@pytest.mark.slow
def test_notebook_of_the_docs_runs(programs, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    startup = tmp_path / "ipython/profile_default/startup/00.py"  # stages run in forks that have imported TensorFlow
    startup.parent.mkdir(parents=True)
    startup.write_text(f"import sys\nsys.executable = {str(programs / 'python')!r}\n")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("LEAF_STATE", str(tmp_path / "state"))
    notebook = nbformat.read(Path(__file__).parents[1] / "docs/tour.ipynb", as_version=4)
    (tmp_path / "work").mkdir()
    resources = {"metadata": {"path": str(tmp_path / "work")}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    printed = [each["text"] for each in notebook.cells[-2]["outputs"] if each["output_type"] == "stream"]
    assert "".join(printed).count("unhealthy 0.") == 3
    assert (tmp_path / "work/run/reports/report.html").is_file()
