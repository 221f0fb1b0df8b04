"""Test `leaf serve` with clients that send too much, too slowly or nothing at all."""

import resource
import signal
import socket
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import pytest

from leaf.serve.server import MAX_CONNECTIONS, MAX_UPLOAD

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
HEAD = (
    b"POST /api/predict HTTP/1.1\r\nHost: %b\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: %d\r\n\r\n"
)


@pytest.fixture
def server(serve, trained, png_file, upload):
    process, address = serve(trained / "models" / "model.onnx", "--quiet")
    upload(address, png_file)
    yield process, address
    process.kill()
    process.wait()


def connect(address):
    parts = urllib.parse.urlsplit(address)
    return socket.create_connection((parts.hostname, parts.port), timeout=60)


def seconds(work):
    start = time.monotonic()
    work()
    return time.monotonic() - start


@pytest.mark.parametrize("sent", ["nothing", "half of the headers", "headers without the body"])
def test_more_idle_connections_than_allowed_do_not_block_others(server, png_file, upload, sent):
    _, address = server
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    head = HEAD % (urllib.parse.urlsplit(address).netloc.encode(), 5000)
    idle = []
    try:
        for _ in range(2 * MAX_CONNECTIONS + 100):
            idle.append(connect(address))
            idle[-1].sendall({"nothing": b"", "half of the headers": head[:40]}.get(sent, head))
        assert seconds(lambda: upload(address, png_file)) < 5
    finally:
        for connection in idle:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_small_image_is_predicted_during_eighty_large_uploads(server, png_file, upload):
    _, address = server
    netloc = urllib.parse.urlsplit(address).netloc.encode()

    def large(_):
        with connect(address) as connection:
            try:
                connection.sendall(HEAD % (netloc, MAX_UPLOAD) + bytes(2**20))
                time.sleep(4)  # the rest is never sent
                connection.sendall(bytes(1000))
                return connection.recv(100)
            except OSError:
                return b""

    with ThreadPoolExecutor(80) as pool:
        uploads = [pool.submit(large, number) for number in range(80)]
        time.sleep(1)
        waits = [seconds(lambda: upload(address, png_file)) for _ in range(5)]
        assert sorted(waits)[2] < 2
        for upload in uploads:
            upload.result()


def test_sigterm_stops_the_server_during_uploads(server):
    process, address = server
    netloc = urllib.parse.urlsplit(address).netloc.encode()
    pending = [connect(address) for _ in range(5)]
    for connection in pending:
        connection.sendall(
            HEAD % (netloc, 100_000) + b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        )
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert seconds(lambda: process.wait(20)) < 8  # the limit is 3 s, plus a margin for a busy machine
    assert process.returncode == 0
    answers = [connection.recv(200) for connection in pending]
    assert all(answer == b"" or answer.startswith(b"HTTP/1.1 503") for answer in answers)


def test_clients_that_do_not_read_do_not_block_others(server, png_file, upload):
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
        assert seconds(lambda: upload(address, png_file)) < 5
    finally:
        for connection in unread:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
