"""Progress is shown as a bar on a terminal and as one line per epoch elsewhere."""

import fcntl
import os
import re
import struct
import termios

import pytest

from leaf.train.callbacks import ProgressBar


def run_on_terminal(columns, monkeypatch, quiet=False):
    """Run two epochs on a terminal of `columns` columns and return their stderr."""
    reader, writer = os.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(writer, "w") as stream, monkeypatch.context() as patch:
        patch.setattr("sys.stderr", stream)
        run(quiet)
        stream.write("end")
    text = ""
    while not text.endswith("end"):
        text += os.read(reader, 4096).decode()
    os.close(reader)
    return text.removesuffix("end")


def run(quiet=False):
    with ProgressBar(4, 2, 1, quiet) as bar:
        for epoch in (2, 3):
            bar.step(epoch, 0.5, 0.9)
            bar.step(epoch, 0.25, 0.9)
            bar.epoch_ended({"epoch": epoch, "loss": 0.25, "validation_accuracy": 0.75})


LINES = re.compile(
    r"epoch 2/4: loss 0\.2500, validation accuracy 0\.750, at most 00:00 left\r?\n"
    r"epoch 3/4: loss 0\.2500, validation accuracy 0\.750, at most 00:00 left\r?\n"
)


def test_a_log_gets_a_line_per_epoch(capsys):
    run()
    assert LINES.fullmatch(capsys.readouterr().err)


def test_a_terminal_without_columns_gets_a_line_per_epoch(monkeypatch):
    assert LINES.fullmatch(run_on_terminal(0, monkeypatch))


def test_a_terminal_gets_a_bar_instead(monkeypatch):
    text = run_on_terminal(100, monkeypatch)
    assert "\r" in text
    assert "validation" not in text


@pytest.mark.parametrize("columns", [0, 100])
def test_quiet_prints_nothing(monkeypatch, columns):
    assert run_on_terminal(columns, monkeypatch, quiet=True) == ""


def test_the_time_left_is_estimated_from_earlier_epochs(monkeypatch, capsys):
    now = iter([100.0, 160.0])
    monkeypatch.setattr("leaf.train.callbacks.time.monotonic", lambda: next(now))
    with ProgressBar(12, 1) as bar:
        bar.epoch_ended({"epoch": 2, "loss": 1.0, "validation_accuracy": 0.5})
    assert "at most 05:00 left" in capsys.readouterr().err
