"""`leaf serve` for ten minutes: eight honest clients among slow, large, broken and hostile ones.

LEAF_SOAK_SECONDS shortens it.
"""

import contextlib
import os
import signal
import socket
import statistics
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from leaf.serve.classifier import load
from leaf.serve.security import MAX_UPLOAD
from tests.ingest.kinds_of_images import many_scans
from tests.serve.conftest import png

SECONDS = float(os.environ.get("LEAF_SOAK_SECONDS", "600"))
HONEST = 8
pytestmark = [pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(SECONDS + 300)]


def resident(process):
    """MiB of memory that a process and its children hold."""
    total, waiting = 0, [process]
    while waiting:
        number = waiting.pop()
        with contextlib.suppress(OSError):
            waiting += map(int, Path(f"/proc/{number}/task/{number}/children").read_text().split())
            total += int(Path(f"/proc/{number}/statm").read_text().split()[1])
    return total * os.sysconf("SC_PAGE_SIZE") / 2**20


class Visitors:
    """Those who are no honest clients; each method is one visit."""

    def __init__(self, address):
        self.address = address
        self.where = urllib.parse.urlsplit(address)
        self.scans = many_scans(np.zeros((4000, 4000, 3), np.uint8), 90)  # seconds to decode
        self.random = np.random.default_rng(1)

    def connect(self):
        return socket.create_connection((self.where.hostname, self.where.port), timeout=30)

    def head(self, length, host=None):
        return (
            f"POST /api/predict HTTP/1.1\r\nHost: {host or self.where.netloc}\r\n"
            f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {length}\r\n\r\n"
        ).encode()

    def post(self, content, **headers):
        body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="\x1b[2J"\r\n\r\n' + content
        headers = {"Content-Type": "multipart/form-data; boundary=x", **headers}
        request = urllib.request.Request(f"{self.address}/api/predict", body + b"\r\n--x--\r\n", headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def slow(self):
        """Send a head and then a byte at a time."""
        with self.connect() as one:
            one.sendall(self.head(5000))
            for _ in range(10):
                one.sendall(b"-")
                time.sleep(0.5)

    def silent(self):
        """Hold connections that say nothing, or half a head."""
        held = [self.connect() for _ in range(20)]
        for one in held[::2]:
            one.sendall(self.head(9)[:30])
        time.sleep(3)
        for one in held:
            one.close()

    def large(self):
        """Upload as much as may be."""
        self.post(bytes(MAX_UPLOAD - 1000))

    def broken(self):
        """Upload what begins like a picture, and cut a body short."""
        with contextlib.suppress(OSError):
            self.post(b"\x89PNG\r\n\x1a\n" + self.random.bytes(5000))
        with self.connect() as one:
            one.sendall(self.head(5000) + b"--x\r\n")

    def hostile(self):
        """A picture that takes seconds, a page of another site, another host's name, no request at all."""
        with contextlib.suppress(OSError):
            self.post(self.scans)
        with contextlib.suppress(OSError):
            self.post(b"x", Origin="https://elsewhere.example")
        with self.connect() as one:
            one.sendall(self.head(5, "elsewhere.example") + b"\x00" * 5)
            one.recv(100)
        with self.connect() as one:
            one.sendall(self.random.bytes(3000))
            one.recv(100)


def test_honest_clients_are_answered_well_among_all_others_and_memory_stays(serve, trained, upload, request):
    arrays = [np.random.default_rng(number).integers(0, 256, (60, 80, 3), np.uint8) for number in range(16)]
    pictures = list(map(png, arrays))
    process, address = serve(trained / "models" / "model.keras", "--quiet")
    request.addfinalizer(process.kill)
    right = [upload(address, picture) for picture in pictures]
    model = load(trained / "models" / "model.keras")
    assert [answer["label"] for answer in right] == [each.label for each in model.predict(arrays)]
    end, waits, wrong, memory = time.monotonic() + SECONDS, [], [], []
    visitors, over = Visitors(address), threading.Event()

    def honest(number):
        while time.monotonic() < end:
            number = (number + 1) % len(pictures)
            start = time.monotonic()
            while True:  # told to come again, it comes again
                try:
                    answer = upload(address, pictures[number])
                    break
                except urllib.error.HTTPError as error:
                    if error.code != 503:
                        raise
                    time.sleep(0.2)
            waits.append(time.monotonic() - start)
            if answer != right[number]:
                wrong.append((number, answer))
            time.sleep(0.1)

    def visit(kind):
        while not over.is_set():
            with contextlib.suppress(OSError):
                kind()
            time.sleep(0.2)

    kinds = [visitors.slow, visitors.silent, visitors.large, visitors.broken, visitors.hostile]
    with ThreadPoolExecutor(HONEST + len(kinds)) as pool:
        honest_ones = [pool.submit(honest, 2 * number) for number in range(HONEST)]
        others = [pool.submit(visit, kind) for kind in kinds]
        while time.monotonic() < end:
            time.sleep(min(2, SECONDS / 20))
            memory.append(resident(process.pid))
        for one in honest_ones:
            one.result()
        process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        assert process.wait(20) == 0
        stopped = time.monotonic() - start
        over.set()
        for one in others:
            one.result()
    quarter = len(memory) // 4
    before, after = statistics.median(memory[quarter : 2 * quarter]), statistics.median(memory[-quarter:])
    told = f"{len(waits)} answers, median {statistics.median(waits):.2f} s, longest {max(waits):.1f} s, memory "
    told += f"{before:.0f} to {after:.0f} MiB, stopped in {stopped:.1f} s"
    print(told)
    assert wrong == []
    assert statistics.median(waits) < 2, told
    assert after < 1.1 * before, told
    assert stopped < 5, told
