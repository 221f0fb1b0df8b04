"""`leaf serve` under clients that send too much, too slowly or nothing at all."""

import resource
import signal
import socket
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import pytest

from leaf.serve.security import MAX_UPLOAD
from leaf.serve.server import MAX_CONNECTIONS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
HEAD = (
    b"POST /api/predict HTTP/1.1\r\nHost: %b\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: %d\r\n\r\n"
)


@pytest.fixture
def server(serve, trained, picture, upload):
    process, address = serve(trained / "models" / "model.onnx", "--quiet")
    upload(address, picture)
    yield process, address
    process.kill()
    process.wait()


def connect(address):
    where = urllib.parse.urlsplit(address)
    return socket.create_connection((where.hostname, where.port), timeout=60)


def seconds(work):
    start = time.monotonic()
    work()
    return time.monotonic() - start


@pytest.mark.parametrize("sent", ["nothing", "half a head", "a head without its body"])
def test_more_silent_connections_than_it_allows_do_not_lock_others_out(server, picture, upload, sent):
    _, address = server
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    head = HEAD % (urllib.parse.urlsplit(address).netloc.encode(), 5000)
    silent = []
    try:
        for _ in range(2 * MAX_CONNECTIONS + 100):
            silent.append(connect(address))
            silent[-1].sendall({"nothing": b"", "half a head": head[:40]}.get(sent, head))
        assert seconds(lambda: upload(address, picture)) < 5
    finally:
        for one in silent:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_small_photograph_is_answered_beside_eighty_large_uploads(server, picture, upload):
    _, address = server
    netloc = urllib.parse.urlsplit(address).netloc.encode()

    def large(_):
        with connect(address) as one:
            try:
                one.sendall(HEAD % (netloc, MAX_UPLOAD) + bytes(2**20))
                time.sleep(4)  # and the rest does not come
                one.sendall(bytes(1000))
                return one.recv(100)
            except OSError:
                return b""

    with ThreadPoolExecutor(80) as pool:
        uploads = [pool.submit(large, number) for number in range(80)]
        time.sleep(1)
        waits = [seconds(lambda: upload(address, picture)) for _ in range(5)]
        assert sorted(waits)[2] < 2
        for upload in uploads:
            upload.result()


def test_sigterm_ends_it_in_time_while_bodies_are_on_their_way(server):
    process, address = server
    netloc = urllib.parse.urlsplit(address).netloc.encode()
    pending = [connect(address) for _ in range(5)]
    for one in pending:
        one.sendall(
            HEAD % (netloc, 100_000) + b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        )
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert seconds(lambda: process.wait(20)) < 8  # five are promised; others are at work here
    assert process.returncode == 0
    answers = [one.recv(200) for one in pending]
    assert all(answer == b"" or answer.startswith(b"HTTP/1.1 503") for answer in answers)


def test_clients_that_do_not_read_do_not_lock_others_out(server, picture, upload):
    _, address = server
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    request = b"GET /assets/page.js HTTP/1.1\r\nHost: %b\r\n\r\n" % urllib.parse.urlsplit(address).netloc.encode()
    unread = []
    try:
        for _ in range(MAX_CONNECTIONS + 20):
            unread.append(connect(address))
            unread[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            unread[-1].sendall(request * 20)
        assert seconds(lambda: upload(address, picture)) < 5
    finally:
        for one in unread:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
