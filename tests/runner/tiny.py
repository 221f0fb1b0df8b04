"""Create a tiny DVC project whose training behaves like leaf's, but takes a second and does not need TensorFlow."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

CLI = "from leaf.cli import main; main()"
PIPELINE = """
    stages:
      ingest:
        cmd: python ingest.py
        deps: [ingest.py, data/raw/leaves.txt]
        params: [drawn.images]
        outs: [ingested.txt]
      train:
        cmd: python train.py
        deps: [train.py, ingested.txt]
        params: [seed, epochs, dataset, backbone]
        outs: [model.txt]
        metrics: [metrics.json: {cache: false}]
"""

PARAMS = """
    dataset: ingested.txt
    seed: 42
    epochs: 3
    backbone: convnext_atto
    ignore: []
    drawn: {images: 100}
"""

INGEST = """
    from pathlib import Path

    Path("ingested.txt").write_text(Path("data/raw/leaves.txt").read_text() * 2)
"""

# As in leaf's train stage, the checkpoint is outside DVC's outputs and named after a hash of parameters and data,
# SIGTERM ends training after the current epoch, and the result depends only on parameters and data.
TRAIN = """
    import hashlib, json, os, signal, sys, time
    from pathlib import Path

    import yaml

    params = yaml.safe_load(Path("params.yaml").read_text())
    key = hashlib.sha256(json.dumps(params, sort_keys=True).encode() + Path("ingested.txt").read_bytes()).hexdigest()
    folder = Path(os.environ.get("LEAF_STATE") or Path.home() / ".cache" / "tiny")
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / key
    epoch, digest = json.loads(state.read_text()) if state.exists() else (0, key)
    device = os.environ.get("CUDA_VISIBLE_DEVICES")
    print("resumes" if epoch else "starts", "at epoch", epoch, "device", device, flush=True)
    print("links to the images:", os.stat("ingested.txt").st_nlink, flush=True)
    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(1))
    trace = Path(os.environ.get("TINY_TRACE", os.devnull)).open("a")
    began = time.time()
    while epoch < params["epochs"]:
        time.sleep(float(os.environ.get("TINY_SECONDS", "0")))
        epoch, digest = epoch + 1, hashlib.sha256(f"{digest}{params['seed']}".encode()).hexdigest()
        state.with_suffix(".new").write_text(json.dumps([epoch, digest]))
        state.with_suffix(".new").replace(state)
        if stopping:
            sys.exit(143)
    Path("model.txt").write_text(digest)
    Path("metrics.json").write_text(json.dumps({"accuracy": int(digest[:4], 16) / 65536, "seed": params["seed"]}))
    state.unlink()
    print(began, time.time(), file=trace)
"""

EXPERIMENTS = """
    wider: {why: a wider network, set: {backbone: convnext_tiny}}
    longer: {why: more epochs, set: {epochs: 4}}
"""


def run(*argv: str, cwd: Path, status: int = 0) -> str:
    """Run a program, check its exit status, and return its stdout and stderr."""
    answer = subprocess.run(argv, cwd=cwd, capture_output=True, text=True)
    assert answer.returncode == status, f"{argv}: {answer.returncode}\n{answer.stdout}{answer.stderr}"
    return answer.stdout + answer.stderr


class Project(NamedTuple):
    """A checkout of the tiny project, next to its bare git remote and its DVC remote."""

    path: Path
    target: Path  # the folder for jobs on the target

    def leaf(self, *arguments: str, status: int = 0) -> str:
        return run(sys.executable, "-c", CLI, *arguments, cwd=self.path, status=status)

    def git(self, *arguments: str) -> str:
        return run("git", *arguments, cwd=self.path).strip()

    def commit(self, **files: str) -> None:
        for name, text in files.items():
            (self.path / name).write_text(dedent(text))
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "change")

    def experiments(self) -> dict[str, str]:
        """Return the commit of each local experiment of HEAD, by name."""
        revision = self.git("rev-parse", "HEAD")
        prefix = f"refs/exps/{revision[:2]}/{revision[2:]}/"
        rows = self.git("for-each-ref", "--format=%(refname) %(objectname)", prefix).splitlines()
        return {name.removeprefix(prefix): commit for name, commit in (row.split() for row in rows)}

    def said(self, words: str) -> bool:
        """Return whether the log of a job on the target contains `words`."""
        return any(words in path.read_text() for path in self.target.glob("jobs/*/*/log"))

    def file(self, experiment: str, name: str) -> str:
        """Return a file of an experiment's commit."""
        return self.git("show", f"{self.experiments()[experiment]}:{name}")


def expected(seed: int, epochs: int = 3, backbone: str = "convnext_atto") -> dict[str, object]:
    """Return the metrics of an uninterrupted training run of the tiny project."""
    params = {"dataset": "ingested.txt", "seed": seed, "epochs": epochs, "backbone": backbone}
    params |= {"ignore": [], "drawn": {"images": 100}}
    digest = hashlib.sha256(json.dumps(params, sort_keys=True).encode() + b"leaf\nleaf\n").hexdigest()
    for _ in range(epochs):
        digest = hashlib.sha256(f"{digest}{seed}".encode()).hexdigest()
    return {"accuracy": int(digest[:4], 16) / 65536, "seed": seed}
