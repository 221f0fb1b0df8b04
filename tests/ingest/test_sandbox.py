"""Test the limits on the decoding time, memory and JPEG scans of one image."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leaf.ingest import sandbox
from leaf.ingest.decode import PIXELS, UnreadableError, decode
from leaf.ingest.sandbox import Decoders, read_file, read_image
from tests.ingest.kinds_of_images import many_scans, quarters, saved


@pytest.fixture
def decoders():
    made = Decoders(2)
    yield made
    made.close()


@pytest.fixture(scope="module")
def slow_picture():
    """Return a progressive JPEG of 16 megapixels with 4,000 scans, which is slow to decode."""
    return many_scans(np.zeros((4000, 4000, 3), np.uint8), 4000)


def test_worker_result_equals_in_process_result(decoders):
    data = saved(np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8), "PNG")
    for fit in ("crop", "pad", "stretch"):
        here, there = decode(data, 32, fit), decoders.read(data, 32, fit)
        np.testing.assert_array_equal(here.pixels, there.pixels)
        assert (here.width, here.height, here.frames) == (there.width, there.height, there.frames)


def test_jpeg_with_too_many_scans_is_rejected_at_once():
    with pytest.raises(UnreadableError, match="a JPEG with more than 100 scans"):
        read_image(many_scans(np.zeros((2000, 2000, 3), np.uint8), 150), 32)


def test_an_ordinary_progressive_jpeg_is_read():
    assert read_image(saved(quarters(), "JPEG", progressive=True), 32).width == 32


def test_markers_after_the_image_are_not_counted_as_scans():
    film = saved(quarters(), "JPEG") + b"\xff\xda" * 5000  # for example, phones append a video to an image
    assert read_image(film, 32).width == 32


@pytest.mark.slow
def test_slow_image_is_stopped_and_the_next_is_read(slow_picture):
    hasty = Decoders(1, seconds=1)
    with pytest.raises(UnreadableError, match="more than 1 seconds"):
        hasty.read(slow_picture, 32)
    assert hasty.read(saved(quarters(), "PNG"), 32).width == 32
    hasty.close()


@pytest.mark.slow
def test_closing_stops_a_running_decoder_within_a_second(slow_picture):
    made, outcome = Decoders(1), []

    def ask():
        try:
            made.read(slow_picture, 32)
        except UnreadableError as why:
            outcome.append(str(why))

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(3)
    began = time.monotonic()
    made.close()
    asking.join(5)
    assert time.monotonic() - began < 1
    assert outcome == ["not read because the program is exiting"]


def test_starting_a_worker_is_retried_once(decoders, monkeypatch):
    starts = []
    start = subprocess.Popen

    def fail_some(*arguments, **options):
        starts.append(arguments)
        if len(starts) in failing:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return start(*arguments, **options)

    monkeypatch.setattr(sandbox.subprocess, "Popen", fail_some)
    failing = {1}
    assert decoders.read(saved(quarters(), "PNG"), 32).width == 32
    decoders._idle.pop().status()
    failing = {3, 4}
    with pytest.raises(UnreadableError, match="the decoder crashed"):
        decoders.read(saved(quarters(), "PNG"), 32)


def test_killed_worker_is_replaced(decoders):
    decoders.read(saved(quarters(), "PNG"), 32)
    decoders._idle[0].process.kill()
    assert decoders.read(saved(quarters(), "PNG"), 32).width == 32


@pytest.mark.slow
def test_worker_ends_with_its_parent():
    code = (
        "import sys, time; sys.path[:] = %r\nfrom leaf.ingest.sandbox import Decoders\nmade = Decoders(1)\n"
        "made.read(sys.stdin.buffer.read(), 32)\nprint(made._idle[0].process.pid, flush=True)\ntime.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code % sys.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    owner.stdin.write(saved(quarters(), "PNG"))
    owner.stdin.close()
    decoder = int(owner.stdout.readline())
    owner.kill()
    owner.wait()
    for _ in range(100):
        with contextlib.suppress(ProcessLookupError):
            os.kill(decoder, 0)
            if "Z" in Path(f"/proc/{decoder}/stat").read_text().split(")")[1].split()[0]:
                break
            time.sleep(0.1)
            continue
        break
    else:
        os.kill(decoder, signal.SIGKILL)
        pytest.fail("the decoder lives on")


@pytest.mark.slow
def test_largest_image_stays_within_the_memory_limit(decoders):
    side = int(PIXELS**0.5)
    data = saved(Image.new("RGB", (side, side), (10, 200, 30)), "PNG", compress_level=1)
    assert decoders.read(data, 96).pixels[0, 0].tolist() == [10, 200, 30]
    status = Path(f"/proc/{decoders._idle[0].process.pid}/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    assert peak < sandbox.MEMORY


def test_image_above_the_memory_limit_is_rejected():
    small = Decoders(1, memory=64 * 2**20)
    with pytest.raises(UnreadableError, match="memory"):
        small.read(saved(Image.new("RGB", (6000, 6000)), "PNG"), 32)
    assert small.read(saved(quarters(), "PNG"), 32).width == 32
    small.close()


def test_large_images_are_decoded_one_at_a_time(decoders):
    inside, most = [0], [0]
    lock = threading.Lock()

    class Watched:
        def acquire(self):
            lock.acquire()
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            return True

        def release(self):
            inside[0] -= 1
            lock.release()

    decoders._one_large = Watched()
    data = saved(Image.new("L", (4200, 4200)), "PNG", compress_level=1)
    threads = [threading.Thread(target=decoders.read, args=(data, 32)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_pipe_folder_and_huge_file_are_unreadable(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnreadableError, match="not a regular file"):
        read_file(tmp_path / "pipe")
    with pytest.raises(UnreadableError, match="is a directory"):
        read_file(tmp_path)
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(sandbox.FILE_BYTES + 1)
    with pytest.raises(UnreadableError, match="bytes exceed the limit"):
        read_file(tmp_path / "huge")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "AVIF"])
def test_hundreds_of_damaged_files_are_read_or_rejected_with_a_reason(decoders, kind):
    whole = saved(quarters(), kind)
    rng = np.random.default_rng(0)
    for _ in range(300):
        odd = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for place in rng.integers(0, len(odd), 3):
            odd[place] = rng.integers(0, 256)
        try:
            said = str(decoders.read(bytes(odd), 16).pixels.shape)
        except UnreadableError as why:
            said = str(why)
        assert said
        assert "\n" not in said
        assert "crashed" not in said
