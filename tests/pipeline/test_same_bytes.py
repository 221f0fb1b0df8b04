"""The outputs of the data stages are byte-identical with and without AVX."""

from pathlib import Path

import pytest

from leaf.experiments import with_settings
from leaf.python_api import new_project, run_stages
from leaf.store import sha256

OUTPUTS = (
    "data/raw/leaves.npz",
    "data/ingested/index.csv",
    "data/cleaned/decisions.csv",
    "data/split/splits.csv",
    "data/balanced/images.npy",
    "data/balanced/index.csv",
)


@pytest.mark.slow
def test_outputs_up_to_smote_are_byte_identical_without_avx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = []
    for name in ("default", "baseline"):
        if name == "baseline":
            monkeypatch.setenv("NPY_DISABLE_CPU_FEATURES", "X86_V3")
            monkeypatch.setenv("OPENCV_CPU_DISABLE", "AVX2,FMA3,AVX")
        new_project(tmp_path / name, with_settings({}, {"drawn.images": 208, "outlier_copies": 4}))
        run_stages(tmp_path / name, ["synthesize", "ingest", "clean", "split", "balance"])
        hashes.append({output: sha256(tmp_path / name / output) for output in OUTPUTS})
    assert hashes[0] == hashes[1]
