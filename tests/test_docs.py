"""The documentation is correct: links, commands, test files, generated pages."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from scipy.stats import ttest_ind

from leaf.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
IDS = [page.name for page in PAGES]
PROGRAMS = ("leaf", "dvc", "git", "make", "python", "pip", "rm", ".")
FORM = re.compile(r"[…|<\[]|\b[A-Z]{3,}(?<!HEAD)\b|key=value")  # a placeholder, as in `leaf run NAME`

# Commands that require another machine, a cluster, a server or many training runs, and the tests that run them.
SSH, SLURM = "tests/runner/test_ssh.py", "tests/runner/test_slurm.py"
S3 = "tests/runner/test_remotes.py"
HOUR = "tests/pipeline/test_first_hour.py"
ROWS, TABLES = "tests/benchmarks/test_rows.py", "tests/benchmarks/test_tables.py"
ELSEWHERE = {
    "pip install": "tests/test_install.py",
    "leaf init": "tests/test_install.py",
    "cd flowers": "tests/test_install.py",
    'git add -A && git commit -m "Add the classifier"': "tests/test_install.py",
    "leaf upgrade": "tests/project/test_upgrade.py",
    "leaf start": HOUR,
    "leaf run transfer": HOUR,
    "leaf run default": HOUR,
    "leaf compare probe transfer": HOUR,
    "leaf pin": HOUR,
    'git commit -am "Pin the split"': HOUR,
    "dvc exp apply transfer": HOUR,
    'git add -A && git commit -m "Train with transfer"': HOUR,
    "dvc exp run -S optimizer=lbfgs": HOUR,
    "python benchmarks/rows.py": ROWS,
    "python benchmarks/accuracy.py": "tests/benchmarks/test_accuracy.py",
    "python benchmarks/review.py": TABLES,
    "leaf submit --on pair": "tests/runner/test_pipeline.py",
    "dvc remote add -d store s3://BUCKET/leaf": S3,
    "dvc remote modify store endpointurl": S3,
    'git commit -am "Data in S3"': S3,
    "make test": ".ci/run",
    "python docs/generate.py --params": "tests/test_docs.py",  # requires the git history
    "leaf doctor --on box": SSH,
    "leaf submit --on box": SSH,
    "leaf jobs": SSH,
    "leaf logs": SSH,
    "leaf fetch --wait": SSH,
    "leaf cancel": SSH,
    "leaf fetch seed-2 --models": SSH,
    "dvc exp apply seed-2": SSH,
    "leaf submit --on slurm": SLURM,
    "leaf folds": "tests/pipeline/test_folds.py",
    "leaf leak": "tests/pipeline/test_folds.py",
    "leaf labels": "tests/evaluate/test_label_issues.py",
    "leaf audit": "tests/audit/test_audit_command.py",
    "leaf review": "tests/review/test_repro.py",
    "leaf export": "tests/export/test_web.py",
    "leaf serve": "tests/serve/test_serve.py",
    "curl": "tests/serve/test_web.py",
}


def commands(page):
    """Yield the commands of a page in order: lines of fenced blocks, and inline code with at least three words.

    In a block with lines that start with `$ `, all other lines are output. A Python block is a single command. Commands
    that produced a measurement are skipped.
    """
    text = re.sub(r"^Measured at commit .*$", "", page.read_text(encoding="utf-8"), flags=re.M)
    for language, block, inline in re.findall(r"^```(\w*)\n(.*?)^```|(?<!`)`([^`\n]+)`", text, re.M | re.S):
        if inline:
            words = inline.split()
            if words[0] in PROGRAMS and len(words) > 2 and not FORM.search(inline):
                yield inline
        elif language == "python":
            yield f"python -c {shlex.quote(block)}"
        elif language in ("", "sh", "text"):
            lines = [line for line in block.splitlines() if line and not line.startswith("#")]
            typed = [line[2:] for line in lines if line.startswith("$ ")]
            for line in typed or lines * (language != "text"):
                yield re.sub(r"\s+#\s.*", "", line)


def elsewhere(command):
    """Return the other test file that runs this command, or None if this file does."""
    return next((test for start, test in ELSEWHERE.items() if f"{command} ".startswith(f"{start} ")), None)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_point_to_files(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_anchors_point_to_headings(page):
    for target, anchor in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", page.read_text(encoding="utf-8")):
        linked = page.parent / target if target else page
        if linked.suffix == ".md":
            text = re.sub(r"^```.*?^```", "", linked.read_text(encoding="utf-8"), flags=re.M | re.S)
            headings = re.findall(r"^#+ (.+)$", text, re.M)
            assert anchor in {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}, target


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_leaf_commands_are_valid(page):
    group = typer.main.get_command(app)
    parts = [part for typed in commands(page) for part in typed.split(" && ")]
    for command in parts:
        if not command.startswith("leaf "):
            continue
        words = shlex.split(command.split(" | ")[0].split(" > ")[0])[1:]
        name, context, arguments = group.resolve_command(typer.Context(group, info_name="leaf"), words)
        context.make_context(name, list(arguments), resilient_parsing=False)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M):
        assert target in targets


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_named_test_files_exist(page):
    for file in re.findall(r"`(tests/[\w/]+\.py)`", page.read_text(encoding="utf-8")):
        assert (ROOT / file).is_file(), file


def test_each_guarantee_of_reliability_lists_a_test_file():
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\| guarantee \| test \|\n\| -.*\n((?:\|.*\n)+)", page, re.M)
    rows = "".join(tables).splitlines()
    assert len(rows) > 30
    for row in rows:
        assert re.search(r"\| (`tests/[\w/]+\.py`(, )?)+ \|$", row), row


@pytest.fixture
def generate():
    """Load docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["parameters", "backbones", "experiments", "honest", "use", "review", "performance"])
def test_generated_pages_are_up_to_date(generate, page):
    assert (ROOT / f"docs/{page}.md").read_text(encoding="utf-8") == generate.PAGES[page]()


def test_params_yaml_is_up_to_date(generate):
    assert (ROOT / "params.yaml").read_text(encoding="utf-8") == generate.params_yaml()


def test_measurement_at_an_unknown_commit_is_rejected(generate):
    with pytest.raises(SystemExit, match=r"benchmarks/rows\.json: .*1{40}"):
        generate.check_commit("1" * 40, "rows")


def test_single_run_comparison_is_replaced_by_a_test_over_seeds(generate):
    sentence = "b is better than a: +10.0 points of accuracy (95 %: +5.0 to +15.0), p = 1e-09, on 9 images."
    result = {"recipes": {"a": {"accuracy": [0.7, 0.72]}, "b": {"accuracy": [0.8, 0.82]}}}
    welch = ttest_ind([0.7, 0.72], [0.8, 0.82], equal_var=False).pvalue
    expected = f"b − a: +10.0 points (95% CI +5.0 to +15.0), Welch's t-test: p = {welch:.2g}."
    assert generate.difference(sentence, result) == expected
    assert "p =" not in generate.difference(sentence.replace("b is", "b with seed 2 is"), result)


def test_unmeasured_claim_is_shown_as_not_run(generate, tmp_path):
    assert generate.performance_md(tmp_path).count("| not run |") == len(generate.CLAIMS) + 1


def test_performance_page_shows_the_measurements(generate, tmp_path):
    row = {"name": "epoch", "ours": 4.2, "other": 4.0, "ratio": 1.05, "spread": [1.04, 1.06], "memory": None}
    (tmp_path / "results.json").write_text(json.dumps([row | {"target": "<= 1.1", "met": True}]))
    stage = {"seconds": 2, "seconds_per_image": 0.001, "memory": 1024, "memory_per_image": 0, "disk_per_image": 2000}
    slopes = {"images": [1000, 4000], "side": 96, "stages": {"clean": stage, "split": stage}}
    scale = {"images": [5000, 20_000, 80_000], "seconds_per_image": [0.001, 0.0011, 0.0022]}
    (tmp_path / "details.json").write_text(json.dumps({"slopes": slopes, "clean_scale": scale}))
    page = generate.performance_md(tmp_path)
    assert "| 4.2 s | 4.0 s | 1.05 | 1.04 to 1.06 | <= 1.1 | met |" in page
    assert "| split | 1.00 ms | 16.7 min | 1.0 GiB | 2.0 GB |" in page
    assert "| clean | 1.00 ms | 4.4 h |" in page  # 1000 s × √(1,000,000 / 4000): the measured exponent is ½


def test_commands_listed_in_elsewhere_run_there():
    documented = {command for page in PAGES for command in commands(page)}
    for start, place in ELSEWHERE.items():
        source = (ROOT / place).read_text(encoding="utf-8")
        verb = shlex.split(start)[1 if start.startswith("leaf") else 0]
        assert verb in source or verb in ("curl", "cd"), f"{place} does not run {verb}"
        assert any(elsewhere(command) == place for command in documented), f"no page contains {start}"


@pytest.fixture(scope="module")
def home(once, clone, small):
    """Return a home folder with images and a clone with the results of a small `make run`."""
    return once("home", lambda folder: _settle(folder, clone, small))


def _settle(folder, clone, small):
    (folder / ".gitconfig").write_text("[user]\n  name = A Person\n  email = person@example.org\n")
    (folder / "mnt").mkdir()
    _photographs(folder / "me")
    venv.create(folder / "venv")  # the venv's `python` uses the packages of this environment
    packages = next(folder.glob("venv/lib/python*/site-packages"))
    (packages / "outer.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})")
    (folder / "venv/installed").touch()
    origin = clone("documented")
    origin.set(**small | {"epochs": 1})
    origin.run("dvc", "cache", "dir", str(folder / "cache"))  # pages share training runs through DVC's run cache
    origin.commit("a small size")
    origin.folder.rename(folder / "origin")
    first = "git clone <this repository> leaf && cd leaf\nmake run\ngit commit -qam 'Baseline on this machine'"
    _type(first.splitlines(), folder, folder / "finished")


def _photographs(folder):
    """Write `leaves/` with a subfolder per class, the same images as an .npz file, and a new image."""
    from leaf.synthesize import ImageCounts, draw_dataset

    images, labels = draw_dataset(ImageCounts(60, 60, 0, 0, 0), 48, 11)
    names = np.array(["healthy", "unhealthy"], dtype=object)[labels]
    for place, (image, name) in enumerate(zip(images, names, strict=True)):
        (folder / "leaves" / name).mkdir(parents=True, exist_ok=True)
        number = np.sum(names[:place] == name)
        Image.fromarray(image).save(folder / "leaves" / name / f"photo_{number:04}.jpg", quality=95)
    Image.fromarray(images[0]).save(folder / "new_leaf.jpg")
    np.savez(folder / "public_data.npz", data=images.astype(np.float32), labels=names)


def _type(typed, home, folder, programs=None):
    """Run commands in one shell in `folder`, with an activated environment and a separate home folder.

    `programs` is first on PATH; `make` inserts another folder before it.
    """
    first = f"{programs}{os.pathsep}" if programs else ""
    folder.mkdir(exist_ok=True)
    replaced = {
        "<this repository> leaf && cd leaf": f"{home}/origin leaf && cd leaf && cp -r {home}/venv .venv",
        "/home/me": f"{home}/me",
        "/mnt": f"{home}/mnt",
        "bin/activate": f"bin/activate && PATH={first}$PATH",
    }
    script = ["set -o pipefail"]
    for command in typed:
        said = f"echo {shlex.quote('$ ' + command)}"
        for words, real in replaced.items():
            command = command.replace(words, real)
        script += [said, f"{{ {command}\n}} || exit 9"]
    project = folder if (folder / "dvc.yaml").is_file() else folder / "leaf"
    environment = {
        **os.environ,
        "PATH": f"{first}{home}/venv/bin{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(project),
        "HOME": str(home),
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),  # overrides the value that runner tests set
        "XDG_CACHE_HOME": str(home / ".cache"),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    done = subprocess.run(
        ["bash"], input="\n".join(script), cwd=folder, env=environment, text=True, stdout=-1, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


LONGEST_FIRST = sorted(PAGES, key=lambda page: -len(list(commands(page))))
NIGHTLY = ("comparing.md", "getting-started.md", "honest.md")  # tested by other pages and tests/pipeline


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.full if page.name in NIGHTLY else ()) for page in LONGEST_FIRST],
    ids=lambda page: page.name,
)
def test_commands_of_a_page_run_in_order(page, home, programs, tmp_path):
    typed = [command for command in commands(page) if not elsewhere(command)]
    if not typed:
        return
    if "git clone" in typed[0]:
        folder = tmp_path
    else:
        folder = shutil.copytree(home / "finished" / "leaf", tmp_path / "leaf", symlinks=True)
        (folder / ".venv/installed").touch()
        for name in ("leaf.jpg", "photographs/a.jpg", "field/north/b.jpg", "a.jpg", "b.png", "last", "c.png"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.open(home / "me/new_leaf.jpg").save(folder / name, format="PNG" if name.endswith("g") else "JPEG")
    output = _type(typed, home, folder, programs)
    assert output.count("$ ") >= len(typed)
