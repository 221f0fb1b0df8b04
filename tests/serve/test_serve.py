"""`leaf serve` as a process: it starts, stops when asked, and says in one line why it cannot."""

import signal
import socket
import threading

import cv2
import numpy as np
import pytest

from leaf.serve.server import lan_address, open_port, qr_code

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_what_it_had_begun_and_ends_well(serve, trained, picture, upload, number):
    process, address = serve(trained / "models" / "model.onnx", "--quiet")
    answers = []
    askers = [threading.Thread(target=lambda: answers.append(upload(address, picture))) for _ in range(4)]
    for asker in askers:
        asker.start()
    while not answers:  # the rest is under way
        askers[0].join(0.01)
    process.send_signal(number)
    assert process.wait(60) == 0
    for asker in askers:
        asker.join(60)
    assert 1 <= len(answers) <= 4
    assert {answer["image"] for answer in answers} == {"a.png"}


def test_on_all_addresses_it_prints_one_that_other_machines_can_open(serve, trained, picture, upload):
    process, address = serve(trained / "models" / "model.onnx", "--quiet", "--host", "0.0.0.0")
    assert address.startswith(f"http://{lan_address('0.0.0.0')}:")
    assert upload(address, picture)["image"] == "a.png"
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def test_connections_send_small_responses_without_delay():
    with open_port("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        accepted.close()


def test_the_qr_code_decodes_to_the_address():
    halves = {"█": (1, 1), "▀": (1, 0), "▄": (0, 1), " ": (0, 0)}  # upper and lower module of a character
    rows = [[halves[character] for character in line] for line in qr_code("http://192.168.1.20:8000").splitlines()]
    modules = np.array(rows, np.uint8).transpose(0, 2, 1).reshape(2 * len(rows), -1)
    image = np.kron(modules * 255, np.ones((8, 8), np.uint8))
    assert cv2.QRCodeDetector().detectAndDecode(image)[0] == "http://192.168.1.20:8000"


def test_a_port_in_use_is_one_line(trained, capfd):
    from leaf.errors import LeafError
    from leaf.serve.web import serve

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(LeafError, match="address already in use"):
        serve(str(trained / "models" / "model.onnx"), "127.0.0.1", taken.getsockname()[1], True)


def test_an_address_of_another_machine_is_one_line(trained):
    from leaf.errors import LeafError
    from leaf.serve.web import serve

    with pytest.raises(LeafError, match=r"port: 1 on 192\.0\.2\.1: cannot assign requested address"):
        serve(str(trained / "models" / "model.onnx"), "192.0.2.1", 1, True)
