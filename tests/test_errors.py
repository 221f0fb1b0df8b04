"""What a person does not see of TensorFlow's start, and all that they do."""

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
NO_CARD = "E0000 00:00:1795664555.166568   12258 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error\n"
ERROR = "E0000 00:00:1795664555.166568   12258 env.cc:1] the disk is broken\n"
FAULT = "F0000 00:00:1795664555.166568   12258 guard.cc:1] compiled to use AVX, which is not available\n"


def stderr_of(code, tmp_path, tensorflow, **variables):
    """What a program of ours that imports `tensorflow`, this text as a module, leaves on standard error."""
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


@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="a machine with a card")
def test_remarks_are_kept_back_and_errors_are_not(tmp_path):
    assert stderr_of(IMPORT, tmp_path, module(START + NO_CARD + ERROR)) == ERROR + "I0000 later\n"


def test_the_last_words_of_an_import_that_crashes_are_read(tmp_path):
    assert FAULT in stderr_of(IMPORT, tmp_path, module(START + FAULT, "os.abort()"))


def test_who_wants_to_read_all_reads_all(tmp_path):
    told = stderr_of(IMPORT, tmp_path, module(START + NO_CARD), TF_CPP_MIN_LOG_LEVEL="0")
    assert told == START + NO_CARD + "I0000 later\n"


def test_an_import_that_fails_is_told_as_ever(tmp_path):
    assert "ImportError: no such library" in stderr_of(
        IMPORT, tmp_path, module(START, "raise ImportError('no such library')")
    )


@pytest.mark.slow
@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="a machine with a card")
def test_the_real_tensorflow_starts_without_a_word():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    code = "import stages, keras, tensorflow; keras.ops.zeros(3); tensorflow.config.list_logical_devices()\n"
    code += "same = tensorflow.function(lambda x: x)\nfor n in range(12): same(n)  # compiled again each time"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_word_of_thousands_of_letters_is_shortened():
    line = str(LeafError(f"dataset: {'a' * 5000}: no such file; valid: {'b' * 300}"))
    assert len(line) < 600
    assert "b" * 300 in line


def test_a_stream_that_has_no_such_letter_gets_its_escape(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdout", stream)
    with one_line_errors():
        print("96×96, \udcff")
    stream.flush()
    assert stream.buffer.getvalue() == b"96\\xd796, \\udcff\n"
