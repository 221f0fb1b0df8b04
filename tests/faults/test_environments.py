"""Test I/O errors, a full temporary folder, caches on another file system, and missing permissions or home folder."""

import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

CALLS = {"write": "write,pwrite64,writev", "fsync": "fsync", "rename": "rename,renameat,renameat2"}
FILES = {"train": "models/.model.partial.keras", "balance": "data/balanced/.images.partial.npy"}
NOBODY = 65534


def run_with_eio(project, calls, file, *command, **variables):
    """Run a command while its system calls on `file` fail with EIO; return its only `error:` line."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:error=EIO", *(["-P", str(file)] if file else [])]
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", *inject]
    done = project.run(*strace, sys.executable, "-m", *command, status=None, **variables)
    if "ptrace" in done.stderr:
        pytest.skip("processes cannot be traced here")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("stage", FILES)
def test_io_error_on_an_output_names_the_file_in_one_line(project, stage, call):
    file = project.folder / FILES[stage]
    line = run_with_eio(project, CALLS[call], file if call == "write" else None, f"stages.{stage}")
    assert "input/output error" in line
    assert project.run("git", "status", "--porcelain", "metrics").stdout == ""
    assert not file.exists()


def test_io_error_on_the_checkpoint_leaves_no_checkpoint(project, tmp_path):
    project.set(epochs=3)
    run_with_eio(project, "fsync", None, "stages.train", LEAF_STATE=str(tmp_path))
    assert not list(tmp_path.rglob("*.npz"))
    project.run("python", "-m", "stages.train", LEAF_STATE=str(tmp_path))
    project.set(epochs=2)


def test_io_error_on_a_read_names_the_file(project):
    line = run_with_eio(project, "read,pread64", project.folder / "data/split/splits.csv", "stages.train")
    assert "data/split/splits.csv: input/output error" in line


@pytest.mark.root
@pytest.mark.parametrize("stage", ["ingest", "train", "evaluate", "report"])
def test_stages_run_with_a_full_temporary_folder(project, tmp_path, tmpfs, stage):
    with tmpfs(tmp_path, 4096) as full:
        (full / "filler").write_bytes(bytes(4096))
        project.run(sys.executable, "-m", f"stages.{stage}", TMPDIR=str(full))


@pytest.mark.root
def test_caches_on_another_file_system_give_the_same_model(project, tmp_path, tmpfs):
    model = project.folder / "models/model.keras"
    before = model.read_bytes()
    with tmpfs(tmp_path, 64 << 20) as other:
        project.run("python", "-m", "stages.train", LEAF_STATE=str(other / "state"))
        assert model.read_bytes() == before
        project.run("dvc", "config", "--local", "cache.dir", str(other / "cache"))
        project.run("dvc", "commit", "--force", "train")
        model.unlink()
        project.run("dvc", "checkout", "train")
        assert model.read_bytes() == before
        project.run("dvc", "config", "--local", "--unset", "cache.dir")


@pytest.mark.root
def test_training_runs_without_a_home_and_reports_missing_permissions(project):
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", sys.executable]
    if os.geteuid() or subprocess.run([*as_nobody, "-c", "import keras"], capture_output=True).returncode:
        pytest.skip("needs root, and a Python that the user nobody can run")
    for path in (project.folder, *project.folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    for parent in project.folder.parents:
        parent.chmod(parent.stat().st_mode | 0o011)
    homeless = {"HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent/cache", "LEAF_STATE": ""}
    done = project.run(*as_nobody, "-m", "stages.train", **homeless)
    assert done.stderr.count("no writable home") == 2  # once for the cache `training` and once for `known`
    os.chown(project.folder / "models", 0, 0)
    done = project.run(*as_nobody, "-m", "stages.train", status=2, **homeless)
    assert "error: models/" in done.stderr
    assert "permission denied" in done.stderr
    assert "Traceback" not in done.stderr


def test_loading_a_model_writes_no_telemetry_to_the_home_folder(trained, tmp_path):
    code = f"from leaf.models.onnx_inference import OnnxNetwork; OnnxNetwork({str(trained / 'models/model.onnx')!r})"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert list(tmp_path.rglob("*")) == []
