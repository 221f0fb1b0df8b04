"""Measure `leaf predict` on many files, single requests to `leaf serve`, and the server under load.

The rows `predict` and `serve` are compared with the bare ONNX Runtime session in the same run on the same cores. The
network is convnext_atto at 96×96 with random weights; the images are JPEG files of synthetic leaves, 256×256.

- predict: the command on a folder, without its startup, compared with the network on prepared batches of equal size.
- page, page_p99: median and 99th percentile of the time per image of one client that reuses its connection, as
  browsers do, compared with 10 and 25 ms. The time from the start of `leaf serve` and `leaf predict` to the first
  response and the server's memory are printed and recorded.
- serve: 8 concurrent clients. No request may be lost. The median response may take at most 1.5 times as long as the
  network alone takes for 8 images in sequence, because seven requests wait while one is processed.
"""

import contextlib
import http.client
import io
import json
import multiprocessing
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import numpy as np
from measure import alternate, arguments, detail, report, row
from PIL import Image

import leaf
from leaf import store
from leaf.evaluate import out_of_distribution as ood
from leaf.serve import predict as predict_command
from leaf.serve.classifier import BATCH_SIZE, Classifier
from leaf.synthesize import draw_leaf

CLIENTS = 8
# (files, repeats over all of them, requests one at a time, requests under load)
SIZES = {"tiny": (64, 1, 5, 200), "bench": (1000, 5, 100, 200), "full": (1000, 15, 500, 1000)}
SIDE = 96
HEADERS = {"Content-Type": "multipart/form-data; boundary=x"}


def project(folder: Path) -> Path:
    """Write a model and its files as `dvc repro` does, and return the ONNX file."""
    with multiprocessing.get_context("spawn").Pool(1) as process:  # so that Keras does not stay in memory
        return process.apply(_project, (folder,))


def _project(folder: Path) -> Path:
    from leaf.models import onnx_export
    from leaf.models.build import build_model
    from leaf.models.onnx_inference import metadata
    from leaf.models.prediction import extract_features
    from leaf.models.saving import save_model

    model = folder / "models" / "model.keras"
    network = build_model("convnext_atto", SIDE)
    save_model(network, model)
    sha256 = store.sha256(model)
    images = np.random.default_rng(0).integers(0, 256, (16, SIDE, SIDE, 3), dtype=np.uint8)
    run = {"model_sha256": sha256, "classes": ["healthy", "unhealthy"], "image_size": SIDE, "fit": "crop"}
    run["backbone"] = "convnext_atto"
    store.write_json(run, model.with_name("run.json"))
    decision = {"threshold": 0.5, "temperature": 1.0, "min_confidence": 0.0, "views": 1, "model_sha256": sha256}
    decision["test_accuracy"] = None
    if why := onnx_export.write(network, metadata(run | decision), images, model.with_suffix(".onnx")):
        raise SystemExit(f"predict: {why}")
    decision["onnx_sha256"] = store.sha256(model.with_suffix(".onnx"))
    store.write_json(decision, folder / "data" / "scored" / "decision.json")
    features = extract_features(network, images)
    detector = ood.fit(features, images, features, images, images[:0])
    ood.write(detector, sha256, folder / "data" / "scored" / "ood.npz")
    return model.with_suffix(".onnx")


def photographs(count: int) -> list[bytes]:
    """Return `count` different JPEG files of leaves, 256×256."""
    leaves = [draw_leaf(np.random.default_rng([7, k]), 256, k % 2 == 0) for k in range(32)]
    files = []
    for number in range(count):
        file, leaf_of = io.BytesIO(), leaves[number % len(leaves)]
        turned = np.rot90(leaf_of, number // len(leaves) % 4).astype(int) + number // (4 * len(leaves))
        Image.fromarray(np.clip(turned, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def form(number: int, content: bytes) -> bytes:
    """Return the body of an upload."""
    head = f'--x\r\nContent-Disposition: form-data; name="image"; filename="{number}"\r\n\r\n'
    return head.encode() + content + b"\r\n--x--\r\n"


def ask(address: str, number: int, content: bytes) -> tuple[float, bool]:
    """Send one image; return the seconds until the response, and whether the response belongs to this request."""
    request = urllib.request.Request(f"{address}/api/predict", form(number, content), HEADERS)
    start = time.perf_counter()
    with urllib.request.urlopen(request, timeout=120) as answer:
        given = json.load(answer)
    return time.perf_counter() - start, given["image"] == str(number)


def one_client(address: str, content: Sequence[bytes], requests: int) -> list[float]:
    """Send requests over one connection; return the seconds of each, after five warm-up requests."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(address).netloc, timeout=120)
    times = []
    for number in range(requests + 5):
        body = form(number, content[number % len(content)])
        start = time.perf_counter()
        connection.request("POST", "/api/predict", body, HEADERS)
        json.loads(connection.getresponse().read())
        times.append(time.perf_counter() - start)
    connection.close()
    return times[5:]


LEAF = [sys.executable, "-c", "from leaf.cli import main; main()"]


@contextlib.contextmanager
def served(model: Path) -> Iterator[tuple[str, int]]:
    """Start `leaf serve` on a free port; yield its address and process ID."""
    program = [*LEAF, "serve", "--port", "0", "--quiet", "--model", str(model)]
    server = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip(), server.pid
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(120)


def bare(classifier: Classifier, count: int) -> float:
    """Return the seconds that the network takes for one prepared batch of `count` images."""
    images = np.zeros((count, SIDE, SIDE, 3), np.float32)
    start = time.perf_counter()
    classifier.network.predict(images)
    return time.perf_counter() - start


def first_answer(model: Path, photograph: Path) -> float:
    """Return the median time in seconds, over five runs, of the whole command for one image."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([*LEAF, "predict", photograph, "--model", model], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def resident(process: int) -> float:
    """Return the resident memory of a process and its children, in MiB."""
    total = 0.0
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
            if str(process) in (fields["Pid"].strip(), fields["PPid"].strip()) and "VmRSS" in fields:
                total += int(fields["VmRSS"].split()[0]) / 1024
    return total


def over_files(classifier: Classifier, model: Path, folder: Path, files: int, repeats: int, record: bool) -> None:
    """Time `leaf predict` on a folder, excluding the time to load the model."""
    with patch.object(predict_command, "load", lambda _: classifier):

        def predict() -> None:
            with contextlib.redirect_stdout(io.StringIO()) as out:
                status = predict_command.predict([str(folder)], str(model), "csv", None, None, True)
            if status or len(out.getvalue().splitlines()) != files + 1:
                raise SystemExit(f"predict: exit status {status}, {len(out.getvalue().splitlines())} lines")

        def network() -> None:
            for start in range(0, files, BATCH_SIZE):
                bare(classifier, min(BATCH_SIZE, files - start))

        report(row("predict", *alternate(predict, network, repeats), "<= 1.15"), record)


def main() -> None:
    options = arguments(__doc__)
    files, repeats, single, requests = SIZES[options.size]
    content = photographs(max(files, requests))
    with tempfile.TemporaryDirectory() as name:
        model, folder = project(Path(name)), Path(name) / "photographs"
        folder.mkdir()
        for number in range(files):
            (folder / f"{number:05}.jpg").write_bytes(content[number])
        classifier = leaf.load(model)
        over_files(classifier, model, folder, files, repeats, options.record)
        first = {"command_seconds": first_answer(model, folder / "00000.jpg")}
        start = time.perf_counter()
        with served(model) as (address, process):
            ask(address, 0, content[0])
            first["seconds"] = time.perf_counter() - start
            times = one_client(address, content[:files], single)
            with ThreadPoolExecutor(CLIENTS) as clients:
                answers = list(clients.map(lambda number: ask(address, number, content[number]), range(requests)))
            alone = [bare(classifier, 1) for _ in range(requests)]
            first["page_mib"] = resident(process)
    print(
        f"predict: {first['seconds']:.2f} s from the start of `leaf serve` to the first response (target: below 2 s), "
        f"{first['command_seconds']:.2f} s for `leaf predict` (target: below 1.5 s); after all requests, the "
        f"server uses {first['page_mib']:.0f} MiB (target: below 300 MiB)"
    )
    detail("first_answer", first, options.record)
    report(row("page", times, [0.010] * len(times), "<= 1"), options.record)
    report(row("page_p99", [float(np.quantile(times, 0.99))], [0.025], "<= 1"), options.record)
    lost = sum(not right for _, right in answers)
    if lost:
        raise SystemExit(f"predict: {lost} of {requests} responses belong to another request")
    waited = [CLIENTS * seconds for seconds in alone]
    print(f"predict: the network alone takes {1000 * statistics.median(alone):.1f} ms per image")
    report(row("serve", [seconds for seconds, _ in answers], waited, "<= 1.5"), options.record)


if __name__ == "__main__":
    main()
