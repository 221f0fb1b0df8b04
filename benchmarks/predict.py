"""`leaf serve` under load: 200 photographs from 8 clients at once.

Nothing may be lost, and the median answer may take 1.5 times what 8 images take the network alone, one after the other
(while one is answered, seven wait), measured in the same run on the same cores. The network is convnext_atto at 96×96
with random weights, which are as fast as trained ones.
"""

import io
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from measure import arguments, report, row
from PIL import Image

import leaf
from leaf import networks, store
from leaf.serving import known

CLIENTS = 8
SIZES = {"tiny": 80, "bench": 200, "full": 1000}  # requests
SIDE = 96


def project(folder: Path) -> Path:
    """A model with what belongs to it, as after `dvc repro`."""
    model = folder / "models" / "model.keras"
    network = networks.build("convnext_atto", SIDE)
    networks.save(network, model)
    sha256 = store.sha256(model)
    run = {"model_sha256": sha256, "classes": ["healthy", "unhealthy"], "image_size": SIDE}
    store.write_json(run, model.with_name("run.json"))
    decision = {"threshold": 0.5, "temperature": 1.0, "views": 1}
    store.write_json(decision, folder / "data" / "scored" / "decision.json")
    images = np.random.default_rng(0).integers(0, 256, (16, SIDE, SIDE, 3), dtype=np.uint8)
    features = networks.features(network, images)
    memory = known.fit(features, images, features, images, images[:0])
    known.write(memory, sha256, folder / "data" / "scored" / "known.npz")
    return model


def photograph(number: int) -> bytes:
    """A JPEG of 256×256, a different one for each number."""
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((256, 256), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def ask(address: str, number: int, content: bytes) -> tuple[float, bool]:
    """Seconds that one answer took, and whether it was the answer to this question."""
    head = f'--x\r\nContent-Disposition: form-data; name="image"; filename="{number}"\r\n\r\n'.encode()
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    request = urllib.request.Request(f"{address}/api/predict", head + content + b"\r\n--x--\r\n", kind)
    start = time.perf_counter()
    with urllib.request.urlopen(request, timeout=120) as answer:
        given = json.load(answer)
    return time.perf_counter() - start, given["image"] == str(number)


def alone(model: Path, repeats: int) -> list[float]:
    """Seconds that the network takes for one image at a time."""
    network = leaf.load(model).network
    image = np.zeros((1, SIDE, SIDE, 3), np.float32)
    times = []
    for _ in range(repeats + 5):
        start = time.perf_counter()
        network.predict_on_batch(image)
        times.append(time.perf_counter() - start)
    return times[5:]


def main() -> None:
    """Time the network alone before and after the load, and report the row."""
    options = arguments(__doc__)
    requests = SIZES[options.size]
    content = [photograph(number) for number in range(requests)]
    with tempfile.TemporaryDirectory() as folder:
        model = project(Path(folder))
        command = [sys.executable, "-c", "from leaf.cli import main; main()", "serve", "--port", "0", "--quiet"]
        server = subprocess.Popen([*command, "--model", str(model)], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            before = alone(model, requests // 2)
            with ThreadPoolExecutor(CLIENTS) as clients:
                answers = list(clients.map(lambda number: ask(address, number, content[number]), range(requests)))
            network = before + alone(model, requests - requests // 2)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)
    lost = sum(not right for _, right in answers)
    if lost:
        raise SystemExit(f"predict: {lost} of {requests} answers were to another question")
    result = row("serve", [seconds for seconds, _ in answers], [CLIENTS * seconds for seconds in network], "<= 1.5")
    print(f"network alone {1000 * statistics.median(network):.1f} ms an image")
    report(result, options.record)


if __name__ == "__main__":
    main()
