"""What every test may use: the real photographs where present, and fresh clones in which DVC really runs."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
SMALL = {
    "drawn": {"images": 208, "size": 32, "seed": 2023},
    "outlier_copies": 4,
    "image_size": 32,
    "epochs": 2,
    "batch_size": 64,
}

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]


class Clone:
    """A clone of the project, with the changes of the working tree committed on top."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run("git", "clone", "--quiet", str(ROOT), str(folder), cwd=folder.parent)
        changed = self.run("git", "ls-files", "-mo", "--exclude-standard", "-z", cwd=ROOT).stdout.split("\0")
        for name in filter(None, changed):
            target = folder / name
            if (ROOT / name).is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target)
            else:
                target.unlink(missing_ok=True)
        self.run("git", "config", "user.name", "A Person")
        self.run("git", "config", "user.email", "person@example.org")

    def run(self, *command: str, status: int | None = 0, cwd: Path | None = None, **variables: str):
        """Run a command in the clone; `status` is the exit status it must have, None for any."""
        done = subprocess.run(
            command, cwd=cwd or self.folder, env=self.environment(**variables), capture_output=True, text=True
        )
        if status is not None and done.returncode != status:
            pytest.fail(f"{' '.join(command)} exited {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}")
        return done

    def environment(self, **variables: str) -> dict[str, str]:
        """The environment of a person who activated the virtual environment, with caches of the test's own."""
        return {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder),  # `leaf` is the clone's own
            "COLUMNS": "200",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "XDG_CACHE_HOME": str(self.folder.parent / "cache"),
            **variables,
        }

    def set(self, **values) -> None:
        """Change keys of params.yaml, as a person with an editor would."""
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
        for key, value in values.items():
            params[key] = {**params[key], **value} if isinstance(value, dict) else value
        path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")

    def commit(self, message: str = "state") -> None:
        """Commit everything that is not ignored."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--allow-empty", "-m", message)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photographs and weights beside the checkout; the test skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"real photographs are absent: {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def small() -> dict:
    """Parameters with which the whole pipeline takes seconds."""
    return SMALL


@pytest.fixture(scope="session")
def clone(tmp_path_factory) -> Callable[[str], Clone]:
    """Make a fresh clone under a name."""
    return lambda name: Clone(tmp_path_factory.mktemp(name) / "project")


@pytest.fixture(scope="session")
def project(clone) -> Clone:
    """A fresh clone in which `dvc repro` ran at a small size, its metrics and lock committed."""
    made = clone("small")
    made.set(**SMALL)
    made.commit("a small run")
    made.output = made.run("dvc", "repro").stdout
    made.commit("baseline")
    return made


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A folder as `dvc repro` leaves it, with a small network that learned drawn leaves for two passes."""
    import keras
    import numpy as np

    from leaf import networks, store
    from leaf.drawing import Recipe, draw_dataset
    from leaf.serving import ood

    folder = tmp_path_factory.mktemp("trained")
    images, labels = draw_dataset(Recipe(70, 70, 2, 0, 0), 32, 7)
    cartoons = np.flatnonzero([np.sum(np.all(images == image, axis=(1, 2, 3))) > 1 for image in images])
    leaves = np.setdiff1d(np.arange(len(images)), cartoons)
    train, validation, test = leaves[:100], leaves[100:120], leaves[120:]
    network = networks.build("cnn_small", 32)
    network.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(images[train].astype(np.float32), labels[train], epochs=2, verbose=0)
    networks.save(network, folder / "models" / "model.keras")
    sha256 = store.sha256(folder / "models" / "model.keras")
    run = {"model_sha256": sha256, "classes": ["healthy", "unhealthy"], "image_size": 32}
    store.write_json(run, folder / "models" / "run.json")
    decision = {"threshold": 0.4, "temperature": 1.5, "views": 1}
    store.write_json(decision, folder / "data" / "scored" / "decision.json")
    seen = [part for rows in (train, validation) for part in (networks.features(network, images[rows]), images[rows])]
    ood.write(ood.fit(*seen, images[:0]), sha256, folder / "data" / "scored" / "known.npz")
    np.savez(folder / "images.npz", test=images[test], cartoons=np.unique(images[cartoons], axis=0))
    return folder


@pytest.fixture(scope="session")
def chromium():
    """Headless Chromium; the test skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if not path:
        pytest.skip("no chromium on PATH (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()
