"""How the tests run, side by side and within their time; and what each may use: real photographs, clones with DVC."""

import datetime
import os
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

sys.path.insert(0, str(Path(__file__).parent))  # --import-mode=importlib leaves the folder out
from warm import Warm

WORKER = "PYTEST_XDIST_WORKER" in os.environ
if WORKER:  # the workers fill the cores: one thread for each, set before numpy and TensorFlow start theirs
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
    "backbone": "cnn_small",  # the default network: tests/benchmarks/test_rows.py
}

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]

# Seconds that a test may take which is not marked slow: of the processor, and by the clock where nobody is at work.
QUICK = {"processor": 10, "clock": 30}
BEGUN = pytest.StashKey[dict[str, float]]()
TOOK: Counter[str] = Counter()  # seconds by the clock of each test, its fixtures included


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slowest", metavar="FILE", help="write the table of the forty slowest tests")


def pytest_configure(config: pytest.Config) -> None:
    """JAX shall compile fast, and what it has compiled in one process of a test it need not compile in the next."""
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("jax")))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


# What goes to one worker: a file for the sake of its fixtures, but two files where they share a Slurm, and a test where
# the fixtures are shared by all workers.
TOGETHER = {"tests/runner/test_pipeline.py": "cluster", "tests/runner/test_slurm.py": "cluster"}
APART = ("::test_the_commands_of_a_page_run_one_after_another[", "::test_a_script_runs_and_measures_what_it_names[")


def group(name: str) -> str:
    """The tests of the same group go to the same worker; `name` is a test's."""
    file = name.partition("::")[0]
    return name if any(part in name for part in APART) else TOGETHER.get(file, file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One worker more than cores: one of them mostly waits, for Slurm, a server or a killed process."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Hand out the groups in the order of the tests; the marks of --dist loadgroup have no effect under pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    return ByGroup(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits starts first, then pages and scripts, then files with slow tests."""
    slow = {group(item.nodeid) for item in items if item.get_closest_marker("slow")}
    kinds = {name: (name != "cluster", "::" not in name, name not in slow) for name in {group(i.nodeid) for i in items}}
    items.sort(key=lambda item: kinds[group(item.nodeid)])


def spent() -> dict[str, float]:
    """Seconds of the processor, by this process and the children that it awaited, and by the clock."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {"processor": sum(one.ru_utime + one.ru_stime for one in usage), "clock": time.monotonic()}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[BEGUN] = spent()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> pytest.TestReport:
    """A test that takes long, with its fixtures, and is not marked slow fails."""
    report = yield
    if call.when == "teardown" and report.passed and item.get_closest_marker("slow") is None:
        took = {clock: now - item.stash[BEGUN][clock] for clock, now in spent().items()}
        # What all tests of a worker shared ends after its last one, and its processor time of all of them with it.
        took["processor"] = min(took["processor"], took["clock"] * (os.cpu_count() or 1))
        took["clock"] /= max(1, max(os.getloadavg()) / (os.cpu_count() or 1))
        if any(took[clock] > most for clock, most in QUICK.items()):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} took {took} seconds and is not marked slow; valid: {QUICK}"
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    TOOK[report.nodeid] += report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table of --slowest, in the process that heard of every test."""
    path = session.config.getoption("--slowest")
    if path is None or WORKER:
        return
    rows = "".join(f"| {seconds:.0f} | `{name}` |\n" for name, seconds in TOOK.most_common(40))
    Path(path).write_text(
        f"# The forty slowest tests\n\n`pytest {' '.join(session.config.invocation_params.args)}`, "
        f"{datetime.date.today()}, {os.cpu_count()} cores: {len(TOOK)} tests, {sum(TOOK.values()):.0f} seconds in all "
        f"workers together. A fixture counts for the test that asked for it first.\n\n| seconds | test |\n"
        f"| ---: | --- |\n{rows}",
        encoding="utf-8",
    )


class Clone:
    """A repository with the project, in which commands run as a person would type them; `programs` is first on PATH."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.programs = programs

    @classmethod
    def made(cls, folder: Path, programs: Path) -> "Clone":
        """One in `folder`, with the changes of the working tree on top, not yet committed.

        It has one commit: `dvc exp run --temp` copies the history, which takes long.
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
        """The same with all that ran in it, once more."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Clone(folder, self.programs)

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
            "PATH": os.pathsep.join(map(str, (self.programs, Path(sys.executable).parent, os.environ["PATH"]))),
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
def programs(tmp_path_factory) -> Iterator[Path]:
    """A folder with the programs `python` and `leaf` that need not import TensorFlow anew."""
    warm = Warm(tmp_path_factory.mktemp("programs"))
    yield warm.folder
    warm.stop()


@pytest.fixture(scope="session")
def clone(tmp_path_factory, programs) -> Callable[[str], Clone]:
    """Make a fresh clone under a name."""
    return lambda name: Clone.made(tmp_path_factory.mktemp(name) / "project", programs)


@pytest.fixture(scope="session")
def once(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Make a folder once for all workers: the first that asks for a name calls `make` with it, the others wait."""
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
    """A clone in which `dvc repro` ran at a small size, its metrics and lock committed: a copy for each file of tests.

    So no file depends on what another leaves behind.
    """

    def make(folder: Path) -> None:
        made = Clone.made(folder / "project", programs)
        made.set(**SMALL)
        made.commit("a small run")
        made.run("dvc", "repro")
        made.commit("baseline")

    return Clone(once("small", make) / "project", programs).copy(tmp_path_factory.mktemp("small") / "project")


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A folder as `dvc repro` leaves it, with a small network that learned drawn leaves for two passes."""
    import keras
    import numpy as np

    from leaf import store
    from leaf.evaluate import out_of_distribution as ood
    from leaf.models import onnx_export as onnx
    from leaf.models.build import build_model
    from leaf.models.prediction import extract_features
    from leaf.models.saving import save_model
    from leaf.synthesize import ImageCounts, draw_dataset

    folder = tmp_path_factory.mktemp("trained")
    images, labels = draw_dataset(ImageCounts(70, 70, 2, 0, 0), 32, 7)
    cartoons = np.flatnonzero([np.sum(np.all(images == image, axis=(1, 2, 3))) > 1 for image in images])
    leaves = np.setdiff1d(np.arange(len(images)), cartoons)
    train, validation, test = leaves[:100], leaves[100:120], leaves[120:]
    keras.utils.set_random_seed(5)  # one that has learned: the order of the images decides in two passes
    network = build_model("cnn_small", 32)
    network.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(images[train].astype(np.float32), labels[train], epochs=2, verbose=0)
    save_model(network, folder / "models" / "model.keras")
    sha256 = store.sha256(folder / "models" / "model.keras")
    run = {"model_sha256": sha256, "classes": ["healthy", "unhealthy"], "image_size": 32, "fit": "crop"}
    store.write_json(run, folder / "models" / "run.json")
    decision = {"threshold": 0.4, "temperature": 1.5, "views": 1, "model_sha256": sha256}
    onnx_file = folder / "models" / "model.onnx"
    assert onnx.write(network, onnx.metadata(run | decision), images[test], onnx_file) == ""
    decision["onnx_sha256"] = store.sha256(onnx_file)
    store.write_json(decision, folder / "data" / "scored" / "decision.json")
    seen = [part for rows in (train, validation) for part in (extract_features(network, images[rows]), images[rows])]
    ood.write(ood.fit(*seen, images[:0]), sha256, folder / "data" / "scored" / "ood.npz")
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
