"""Test the `synthesize` stage, run as `dvc repro` runs it."""

from collections import Counter

import numpy as np
import pytest

from leaf.errors import LeafError
from leaf.ingest.npz import unpickle_strings
from stages import synthesize

PARAMS = "drawn: {images: 100, size: 32, seed: 5}\n"


@pytest.fixture
def project(workspace):
    """Enter a folder with a small params.yaml."""
    (workspace / "params.yaml").write_text(PARAMS)
    return workspace


def test_labels_are_the_names_in_classes(project):
    (project / "params.yaml").write_text(PARAMS + "classes: [well, sick]\n")
    synthesize.main()
    raw = (project / "data/raw/leaves.npz").read_bytes()
    labels = raw[raw.rindex(b"\x80\x03") :]
    assert set(unpickle_strings(labels, 100)) == {"well", "sick"}


def test_diseases_in_classes_are_drawn_equally_often(project):
    (project / "params.yaml").write_text(PARAMS + "classes: [spots, healthy, blight, mildew, holes]\n")
    synthesize.main()
    raw = (project / "data/raw/leaves.npz").read_bytes()
    counts = Counter(unpickle_strings(raw[raw.rindex(b"\x80\x03") :], 100))
    assert set(counts) == {"spots", "healthy", "blight", "mildew", "holes"}
    assert max(counts[name] for name in counts if name != "healthy") - min(counts.values()) <= 5


def test_classes_not_in_the_demo_data_set_are_rejected(project):
    (project / "params.yaml").write_text(PARAMS + "classes: [healthy, spots, tired]\n")
    with pytest.raises(LeafError, match=r"classes: healthy, spots, tired.*healthy and any of spots"):
        synthesize.main()


def test_no_image_is_drawn_for_a_different_data_set(project, capsys):
    (project / "params.yaml").write_text("dataset: elsewhere\n" + PARAMS)
    synthesize.main()
    with np.load(project / "data/raw/leaves.npz", allow_pickle=False) as file:
        assert file["data"].shape == (0, 32, 32, 3)
    assert capsys.readouterr().out == "dataset is elsewhere: no images are generated\n"


def test_counts_are_printed(project, capsys):
    synthesize.main()
    assert "100 images in data/raw/leaves.npz" in capsys.readouterr().out
