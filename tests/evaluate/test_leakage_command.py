"""Test `leaf leak` with simple learners on an .npz file with known copies."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from leaf.cli import app
from leaf.errors import LeafError
from leaf.evaluate import leakage as leak
from leaf.evaluate.leakage import frozen_leak, run_network
from leaf.synthesize import ImageCounts, draw_dataset

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a project with 100 synthetic leaves and three brighter copies of each. Labels are random."""
    made = tmp_path_factory.mktemp("leak")
    images, _ = draw_dataset(ImageCounts(52, 52, 2, 0, 0), 32, 5)
    images = np.unique(images, axis=0)[:100]
    labels = np.random.default_rng(0).integers(0, 2, len(images))
    copies = [np.clip(images.astype(int) + step, 0, 255).astype(np.uint8) for step in range(4)]
    names = np.array(["healthy", "unhealthy"])[np.tile(labels, 4)]
    np.savez(made / "leaves.npz", data=np.concatenate(copies).astype(np.float32), labels=names.astype(object))
    values = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"dataset": "leaves.npz", "image_size": 32}
    (made / "params.yaml").write_text(yaml.safe_dump(values))
    (made / "data/masks").mkdir(parents=True)
    (made / "data/labels.csv").write_text("file,label\n")
    (made / "data/overrides.csv").write_text("hash,ruling,label,who,why\n")
    (made / "data/pinned.csv").write_text("file_hash,split\n")
    return made


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_copies_make_random_labels_look_learnable():
    found, described = frozen_leak(None, [], "neighbour", 2)
    assert found.images[0] == 400
    assert found.images[1] <= 100
    assert found.leaky > 0.9
    assert found.honest < 0.7
    assert found.sentence.startswith("For this recipe, leakage raises the accuracy")
    assert described.startswith("histograms of 512 colors")


def test_the_command_prints_the_sentence_and_the_learner():
    done = CliRunner().invoke(app, ["leak", "--learner", "neighbour", "--repeats", "1", "-S", "folds=2"])
    assert done.stdout.startswith("For this recipe, leakage raises the accuracy: +")
    assert "  learner: neighbour, on histograms of 512 colors" in done.stdout


@pytest.mark.parametrize("key", ["grouping=none", "duplicates=keep", "fold=1"])
def test_keys_set_by_the_command_are_rejected(key):
    with pytest.raises(LeafError, match=r"^\w+: set by `leaf leak`"):
        run_network(None, [key], "x", 1, False)


def test_leaky_and_honest_experiments_are_compared_by_image(monkeypatch):
    """Of the eight images, 6 and 7 are copies that only the leaky runs keep. The honest runs misclassify image 0."""

    def read(revision):
        _, way, _, _, fold = revision.split("-")
        images = [each for each in range(8 if way == "leaky" else 6) if each % 2 == int(fold)]
        rows = [f"{image},test,1,{int(not (way == 'honest' and image == 0))}" for image in images]
        files = {
            "params.yaml": "folds: 2",
            "data/scored/predictions.csv": "\n".join(["image,split,label,predicted", "9,validation,1,1", *rows]),
            "data/cleaned/decisions.csv": "image,group\n" + "\n".join(f"{image},{image % 6}" for image in range(8)),
        }
        return lambda path: files[path].encode()

    monkeypatch.setattr(leak, "reader", read)
    found = leak.network_leak("run", 1)
    assert (found.leaky, found.honest) == (1, pytest.approx(5 / 6))
    assert (found.images, found.groups, found.repeats) == ((8, 6), 6, 1)
