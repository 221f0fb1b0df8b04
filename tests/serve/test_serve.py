"""`leaf serve` as a process: it starts, stops when asked, and says in one line why it cannot."""

import signal
import socket
import threading

import pytest

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
