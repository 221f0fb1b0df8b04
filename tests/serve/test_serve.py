"""Test the `leaf serve` process: start, stop, address and errors."""

import signal
import socket
import threading

import cv2
import numpy as np
import pytest

from leaf.serve.server import lan_address, open_port, qr_code

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_lets_running_requests_finish(serve, trained, png_file, upload, number):
    process, address = serve(trained / "models" / "model.onnx", "--quiet")
    answers = []
    clients = [threading.Thread(target=lambda: answers.append(upload(address, png_file))) for _ in range(4)]
    for client in clients:
        client.start()
    while not answers:  # the other requests may still be in progress
        clients[0].join(0.01)
    process.send_signal(number)
    assert process.wait(60) == 0
    for client in clients:
        client.join(60)
    assert 1 <= len(answers) <= 4
    assert {answer["image"] for answer in answers} == {"a.png"}


def test_host_0_0_0_0_prints_the_address_on_the_network(serve, trained, png_file, upload):
    process, address = serve(trained / "models" / "model.onnx", "--quiet", "--host", "0.0.0.0")
    assert address.startswith(f"http://{lan_address('0.0.0.0')}:")
    assert upload(address, png_file)["image"] == "a.png"
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def test_connections_send_small_responses_without_delay():
    with open_port("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        accepted.close()


def test_qr_code_decodes_to_the_address():
    halves = {"█": (1, 1), "▀": (1, 0), "▄": (0, 1), " ": (0, 0)}  # upper and lower module of a character
    rows = [[halves[character] for character in line] for line in qr_code("http://192.168.1.20:8000").splitlines()]
    modules = np.array(rows, np.uint8).transpose(0, 2, 1).reshape(2 * len(rows), -1)
    image = np.kron(modules * 255, np.ones((8, 8), np.uint8))
    assert cv2.QRCodeDetector().detectAndDecode(image)[0] == "http://192.168.1.20:8000"


def test_port_in_use_is_a_one_line_error(trained, capfd):
    from leaf.errors import LeafError
    from leaf.serve.web import serve

    with (
        socket.create_server(("127.0.0.1", 0)) as socket_in_use,
        pytest.raises(LeafError, match="address already in use"),
    ):
        serve(str(trained / "models" / "model.onnx"), "127.0.0.1", socket_in_use.getsockname()[1], True)


def test_address_of_another_machine_is_a_one_line_error(trained):
    from leaf.errors import LeafError
    from leaf.serve.web import serve

    with pytest.raises(LeafError, match=r"port: 1 on 192\.0\.2\.1: cannot assign requested address"):
        serve(str(trained / "models" / "model.onnx"), "192.0.2.1", 1, True)
