"""Run `leaf serve` for ten minutes, or LEAF_SOAK_SECONDS, with eight regular clients and several hostile ones."""

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
from leaf.serve.server import MAX_UPLOAD
from tests.ingest.kinds_of_images import many_scans
from tests.serve.conftest import png

SECONDS = float(os.environ.get("LEAF_SOAK_SECONDS", "600"))
CLIENTS = 8
pytestmark = [pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(SECONDS + 300)]


def resident(process):
    """Return the resident memory of a process and its children, in MiB."""
    total, waiting = 0, [process]
    while waiting:
        number = waiting.pop()
        with contextlib.suppress(OSError):
            waiting += map(int, Path(f"/proc/{number}/task/{number}/children").read_text().split())
            total += int(Path(f"/proc/{number}/statm").read_text().split()[1])
    return total * os.sysconf("SC_PAGE_SIZE") / 2**20


class BadClients:
    """Slow, large, broken and hostile clients, one method each."""

    def __init__(self, address):
        self.address = address
        self.where = urllib.parse.urlsplit(address)
        self.scans = many_scans(np.zeros((4000, 4000, 3), np.uint8), 90)  # takes seconds to decode
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
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read()

    def slow(self):
        """Send the headers and then one byte at a time."""
        with self.connect() as one:
            one.sendall(self.head(5000))
            for _ in range(10):
                one.sendall(b"-")
                time.sleep(0.5)

    def silent(self):
        """Keep connections open that send nothing or half of the headers."""
        held = [self.connect() for _ in range(20)]
        for one in held[::2]:
            one.sendall(self.head(9)[:30])
        time.sleep(3)
        for one in held:
            one.close()

    def large(self):
        """Upload the largest accepted size."""
        self.post(bytes(MAX_UPLOAD - 1000))

    def broken(self):
        """Upload random bytes after a PNG signature, then send a request with a truncated body."""
        with contextlib.suppress(OSError):
            self.post(b"\x89PNG\r\n\x1a\n" + self.random.bytes(5000))
        with self.connect() as one:
            one.sendall(self.head(5000) + b"--x\r\n")

    def hostile(self):
        """Send an image that is slow to decode, a cross-site request, a wrong host name, and random bytes."""
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


def test_regular_clients_get_correct_responses_and_memory_stays_bounded(serve, trained, upload, request):
    arrays = [np.random.default_rng(number).integers(0, 256, (60, 80, 3), np.uint8) for number in range(16)]
    files = list(map(png, arrays))
    process, address = serve(trained / "models" / "model.keras", "--quiet")
    request.addfinalizer(process.kill)
    expected = [upload(address, file) for file in files]
    model = load(trained / "models" / "model.keras")
    assert [answer["label"] for answer in expected] == [each.label for each in model.predict(arrays)]
    end, waits, wrong, memory = time.monotonic() + SECONDS, [], [], []
    bad_clients, stopped_event = BadClients(address), threading.Event()

    def send_requests(number):
        while time.monotonic() < end:
            number = (number + 1) % len(files)
            start = time.monotonic()
            while True:  # retry after 503
                try:
                    answer = upload(address, files[number])
                    break
                except urllib.error.HTTPError as error:
                    if error.code != 503:
                        raise
                    time.sleep(0.2)
            waits.append(time.monotonic() - start)
            if answer != expected[number]:
                wrong.append((number, answer))
            time.sleep(0.1)

    def visit(kind):
        while not stopped_event.is_set():
            with contextlib.suppress(OSError):
                kind()
            time.sleep(0.2)

    kinds = [bad_clients.slow, bad_clients.silent, bad_clients.large, bad_clients.broken, bad_clients.hostile]
    with ThreadPoolExecutor(CLIENTS + len(kinds)) as pool:
        clients = [pool.submit(send_requests, 2 * number) for number in range(CLIENTS)]
        bad = [pool.submit(visit, kind) for kind in kinds]
        while time.monotonic() < end:
            time.sleep(min(2, SECONDS / 20))
            memory.append(resident(process.pid))
        for one in clients:
            one.result()
        process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        assert process.wait(20) == 0
        stopped = time.monotonic() - start
        stopped_event.set()
        for one in bad:
            one.result()
    quarter = len(memory) // 4
    before, after = statistics.median(memory[quarter : 2 * quarter]), statistics.median(memory[-quarter:])
    summary = f"{len(waits)} answers, median {statistics.median(waits):.2f} s, longest {max(waits):.1f} s, memory "
    summary += f"{before:.0f} to {after:.0f} MiB, stopped in {stopped:.1f} s"
    print(summary)
    assert wrong == []
    assert statistics.median(waits) < 2, summary
    assert after < 1.1 * before, summary
    assert stopped < 5, summary
