"""Test one-line errors, and the filter for TensorFlow's startup messages."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from leaf.errors import LeafError, one_line_errors

START = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795664540.514540   12258 port.cc:153] oneDNN custom operations are on.
I0000 00:00:1795664540.770290   12258 cpu_feature_guard.cc:227] This TensorFlow binary is optimized.
To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow.
"""
NO_GPU = "E0000 00:00:1795664555.166568   12258 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error\n"
ERROR = "E0000 00:00:1795664555.166568   12258 env.cc:1] the disk is broken\n"
FAULT = "F0000 00:00:1795664555.166568   12258 guard.cc:1] compiled to use AVX, which is not available\n"


def stderr_of(code, tmp_path, tensorflow, **variables):
    """Run `code` with `tensorflow` as the source of a fake module tensorflow, and return stderr."""
    (tmp_path / "tensorflow.py").write_text(tensorflow)
    path = os.pathsep.join(map(str, (tmp_path, Path(__file__).parents[1])))
    environment = {**os.environ, "PYTHONPATH": path, **variables}
    if "TF_CPP_MIN_LOG_LEVEL" not in variables:
        environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stderr


def module(text, end=""):
    return (
        f"import os\nos.write(2, {text.encode()!r})\n{end}\n"
        "class config:\n    list_physical_devices = staticmethod(list)\n"
    )


IMPORT = "import stages, os\nimport tensorflow\nos.write(2, b'I0000 later\\n')"


@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="this machine has a GPU")
def test_startup_messages_are_hidden_and_errors_are_not(tmp_path):
    assert stderr_of(IMPORT, tmp_path, module(START + NO_GPU + ERROR)) == ERROR + "I0000 later\n"


def test_last_message_before_a_crash_during_import_is_printed(tmp_path):
    assert FAULT in stderr_of(IMPORT, tmp_path, module(START + FAULT, "os.abort()"))


def test_log_level_0_prints_everything(tmp_path):
    printed = stderr_of(IMPORT, tmp_path, module(START + NO_GPU), TF_CPP_MIN_LOG_LEVEL="0")
    assert printed == START + NO_GPU + "I0000 later\n"


def test_failing_import_keeps_its_error(tmp_path):
    assert "ImportError: no such library" in stderr_of(
        IMPORT, tmp_path, module(START, "raise ImportError('no such library')")
    )


@pytest.mark.slow
@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="this machine has a GPU")
def test_tensorflow_starts_silently():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    code = "import stages, keras, tensorflow; keras.ops.zeros(3); tensorflow.config.list_logical_devices()\n"
    code += "same = tensorflow.function(lambda x: x)\nfor n in range(12): same(n)  # compiled again each time"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_long_words_are_shortened():
    line = str(LeafError(f"dataset: {'a' * 5000}: no such file; valid: {'b' * 300}"))
    assert len(line) < 600
    assert "b" * 300 in line


def test_characters_outside_the_encoding_are_escaped(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdout", stream)
    with one_line_errors():
        print("96×96, \udcff")
    stream.flush()
    assert stream.buffer.getvalue() == b"96\\xd796, \\udcff\n"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EROFS, errno.EEXIST, errno.ESTALE, errno.EMFILE])
def test_operating_system_error_is_one_line(capsys, number):
    with pytest.raises(SystemExit) as caught, one_line_errors():
        raise OSError(number, os.strerror(number), "models/model.keras")
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("error: models/model.keras: ")


def test_path_with_a_nul_character_is_one_line(capsys):
    with pytest.raises(SystemExit) as caught, one_line_errors():
        Path("a\0b").read_text()
    assert caught.value.code == 2
    assert "NUL" in capsys.readouterr().err


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), one_line_errors():
        raise ZeroDivisionError


def test_closed_pipe_ends_without_a_traceback():
    code = "from leaf.errors import one_line_errors\nwith one_line_errors():\n    for n in range(10**6): print(n)"
    command = f'"{sys.executable}" -c "{code}" | head -1'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert (done.stdout, done.stderr) == ("0\n", "")
