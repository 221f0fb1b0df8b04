"""Schedule the tests, and share fixtures: real images, clones with DVC, a trained model."""

import datetime
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

sys.path.insert(0, str(Path(__file__).parent))  # --import-mode=importlib does not add this folder
from warm import Warm

WORKER = "PYTEST_XDIST_WORKER" in os.environ
if WORKER:  # one thread per worker; set before NumPy and TensorFlow are imported
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(variable, "1")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
SMALL = {
    "drawn": {"images": 208, "size": 32, "seed": 2023},
    "outlier_copies": 4,
    "image_size": 32,
    "epochs": 2,
    "batch_size": 64,
    "backbone": "cnn_small",  # tests/benchmarks/test_rows.py covers the default network
}

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]

SLOW = 10  # seconds; slower tests that are not marked `slow` are listed at the end
DURATIONS: Counter[str] = Counter()  # wall time of each test in seconds, including fixtures
UNMARKED: set[str] = set()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slowest", metavar="FILE", help="write a table of the forty slowest tests to FILE")


def pytest_configure(config: pytest.Config) -> None:
    """Make JAX compile faster and share compiled code between processes."""
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("jax")))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


# The tests of a file run in one worker, so that they share fixtures. Files that use the same Slurm cluster share a
# worker. Tests whose fixtures all workers share are distributed one by one.
TOGETHER = {"tests/runner/test_pipeline.py": "cluster", "tests/runner/test_slurm.py": "cluster"}
APART = ("::test_commands_of_a_page_run_in_order[", "::test_script_runs_and_prints_its_rows[")


def group(name: str) -> str:
    """Return the group of a test. Each group runs in one worker."""
    file = name.partition("::")[0]
    return name if any(part in name for part in APART) else TOGETHER.get(file, file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Use one more worker than there are cores, because one mostly waits for Slurm, a server or a killed process."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Distribute groups in test order, because --dist loadgroup ignores its marks under pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    return ByGroup(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests that wait for Slurm first, then documentation pages and scripts, then files with slow tests."""
    slow = {group(item.nodeid) for item in items if item.get_closest_marker("slow")}
    kinds = {name: (name != "cluster", "::" not in name, name not in slow) for name in {group(i.nodeid) for i in items}}
    items.sort(key=lambda item: kinds[group(item.nodeid)])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    DURATIONS[report.nodeid] += report.duration
    if "slow" not in report.keywords:
        UNMARKED.add(report.nodeid)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """List unmarked slow tests instead of failing them, because the machine may be busy."""
    for name in sorted(name for name in UNMARKED if DURATIONS[name] > SLOW):
        terminalreporter.write_line(f"slow, not marked: {name} took {DURATIONS[name]:.1f} s (limit {SLOW} s)")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table for --slowest, in the process that collects all reports."""
    path = session.config.getoption("--slowest")
    if path is None or WORKER:
        return
    rows = "".join(f"| {seconds:.0f} | `{name}` |\n" for name, seconds in DURATIONS.most_common(40))
    command = " ".join(session.config.invocation_params.args)
    total = sum(DURATIONS.values())
    Path(path).write_text(
        f"# The forty slowest tests\n\n`pytest {command}`, {datetime.date.today()}, {os.cpu_count()} cores: "
        f"{len(DURATIONS)} tests, {total:.0f} seconds in all workers together. The time of a fixture counts toward the "
        f"first test that uses it.\n\n| seconds | test |\n| ---: | --- |\n{rows}",
        encoding="utf-8",
    )


class Clone:
    """A git clone of the project. The folder `programs` comes first on its PATH."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.programs = programs

    @classmethod
    def made(cls, folder: Path, programs: Path) -> "Clone":
        """Create a clone in `folder`, including uncommitted changes.

        Its history is a single commit, because `dvc exp run --temp` copies the history.
        """
        self = cls(folder, programs)
        folder.mkdir()
        self.run("git", "init", "--quiet", "--initial-branch", "main")
        self.run("git", "remote", "add", "origin", str(ROOT))
        self.run("git", "config", "user.name", "A Person")
        self.run("git", "config", "user.email", "person@example.org")
        self.run("git", "archive", "--output", str(folder.parent / "head.tar"), "HEAD", cwd=ROOT)
        self.run("tar", "-xf", str(folder.parent / "head.tar"))
        self.commit("the project")
        changed = self.run("git", "ls-files", "-mo", "--exclude-standard", "-z", cwd=ROOT).stdout.split("\0")
        for name in filter(None, changed):
            target = folder / name
            if (ROOT / name).is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target)
            else:
                target.unlink(missing_ok=True)
        return self

    def copy(self, folder: Path) -> "Clone":
        """Copy the clone with all outputs."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Clone(folder, self.programs)

    def run(self, *command: str, status: int | None = 0, cwd: Path | None = None, **variables: str):
        """Run a command in the clone and check its exit status; None accepts any."""
        done = subprocess.run(
            command, cwd=cwd or self.folder, env=self.environment(**variables), capture_output=True, text=True
        )
        if status is not None and done.returncode != status:
            pytest.fail(f"{' '.join(command)} exited {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}")
        return done

    def start(self, *command: str, **options: Any) -> subprocess.Popen:
        """Start a command in the clone; `options` are passed to Popen."""
        return subprocess.Popen(command, cwd=self.folder, env=self.environment(), **options)

    def environment(self, **variables: str) -> dict[str, str]:
        """Return environment variables that activate the virtual environment and use separate caches."""
        return {
            **os.environ,
            "PATH": os.pathsep.join(map(str, (self.programs, Path(sys.executable).parent, os.environ["PATH"]))),
            "PYTHONPATH": str(self.folder),  # import the clone's leaf
            "COLUMNS": "200",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "XDG_CACHE_HOME": str(self.folder.parent / "cache"),
            **variables,
        }

    def set(self, **values) -> None:
        """Change keys of params.yaml."""
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
    """Return the folder of real images and weights next to the checkout; skip if it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"real images are absent: {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def small() -> dict:
    """Return parameters that make the pipeline run in seconds."""
    return SMALL


@pytest.fixture(scope="session")
def programs(tmp_path_factory) -> Iterator[Path]:
    """Return a folder with `python`, `leaf` and `dvc`, which fork a process that has imported TensorFlow."""
    warm = Warm(tmp_path_factory.mktemp("programs"))
    yield warm.folder
    warm.stop()


@pytest.fixture(scope="session")
def clone(tmp_path_factory, programs) -> Callable[[str], Clone]:
    """Return a function that creates a fresh clone."""
    return lambda name: Clone.made(tmp_path_factory.mktemp(name) / "project", programs)


@pytest.fixture(scope="session")
def once(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Return a function that creates a named folder once for all workers."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if WORKER else base

    def get(name: str, make: Callable[[Path], None]) -> Path:
        folder = base / f"once-{name}"
        with FileLock(base / f"once-{name}.lock"):
            if not (base / f"once-{name}.made").exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                (base / f"once-{name}.made").touch()
        return folder

    return get


@pytest.fixture(scope="module")
def project(once, tmp_path_factory, programs) -> Clone:
    """Return a clone with the committed results of a small `dvc repro`; each test file gets its own copy."""

    def make(folder: Path) -> None:
        made = Clone.made(folder / "project", programs)
        made.set(**SMALL)
        made.commit("a small run")
        made.run("dvc", "repro")
        made.commit("baseline")

    return Clone(once("small", make) / "project", programs).copy(tmp_path_factory.mktemp("small") / "project")


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """Return a folder with a small trained model and the other outputs of `dvc repro` that predictions need."""
    import keras
    import numpy as np

    from leaf import store
    from leaf.evaluate import out_of_distribution as ood
    from leaf.models import onnx_export as onnx
    from leaf.models.build import build_model
    from leaf.models.onnx_inference import metadata
    from leaf.models.prediction import extract_features
    from leaf.models.saving import save_model
    from leaf.synthesize import ImageCounts, draw_dataset

    folder = tmp_path_factory.mktemp("trained")
    images, labels = draw_dataset(ImageCounts(70, 70, 2, 0, 0), 32, 7)
    cartoons = np.flatnonzero([np.sum(np.all(images == image, axis=(1, 2, 3))) > 1 for image in images])
    leaves = np.setdiff1d(np.arange(len(images)), cartoons)
    train, validation, test = leaves[:100], leaves[100:120], leaves[120:]
    keras.utils.set_random_seed(5)  # fixed, because the accuracy after two epochs depends on the image order
    network = build_model("cnn_small", 32)
    network.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(images[train].astype(np.float32), labels[train], epochs=2, verbose=0)
    save_model(network, folder / "models" / "model.keras")
    sha256 = store.sha256(folder / "models" / "model.keras")
    run = {"model_sha256": sha256, "classes": ["healthy", "unhealthy"], "image_size": 32, "fit": "crop"}
    run["backbone"] = "cnn_small"
    store.write_json(run, folder / "models" / "run.json")
    decision = {"threshold": 0.4, "temperature": 1.5, "min_confidence": 0.6, "views": 1, "model_sha256": sha256}
    decision["test_accuracy"] = 0.9
    onnx_file = folder / "models" / "model.onnx"
    assert onnx.write(network, metadata(run | decision), images[test], onnx_file) == ""
    decision["onnx_sha256"] = store.sha256(onnx_file)
    store.write_json(decision, folder / "data" / "scored" / "decision.json")
    seen = [part for rows in (train, validation) for part in (extract_features(network, images[rows]), images[rows])]
    ood.write(ood.fit(*seen, images[:0]), sha256, folder / "data" / "scored" / "ood.npz")
    np.savez(folder / "images.npz", test=images[test], cartoons=np.unique(images[cartoons], axis=0))
    return folder


@pytest.fixture(scope="session")
def chromium():
    """Start headless Chromium; skip the test if it is not installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if not path:
        pytest.skip("no chromium on PATH (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()
