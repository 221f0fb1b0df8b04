"""Measure the memory and CPU time of the experiments that use pretrained backbones.

The weights are random here, because their values do not affect the cost.

    python benchmarks/backbone_cost.py [--rows probe_convnext …] [--sizes 96 160]

Each experiment runs in its own process. Inference and training use a batch of 32 images. Training is one update after
the frozen epochs, with the experiment's `freeze_depth`. CPU time is summed over all threads, so other
processes hardly affect it. Memory is the peak memory of the process, including TensorFlow.
"""

import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
from runs import keep_table, table_parser

BATCH, REPEATS = 32, 3
COLUMNS = ["backbone", "image size", "inference, CPU ms per image", "training, CPU ms per image", "peak memory"]


def measure(row: str, size: int) -> dict[str, Any]:
    """Return CPU seconds per image and peak memory in bytes of this process."""
    from leaf.experiments import experiment, with_settings
    from leaf.models.build import build_model_from_params
    from leaf.train.dataset import Batch
    from leaf.train.learning_rate import make_schedule
    from leaf.train.optimizer import compile_model, train_step

    settings = dict(experiment(row).set) | {"weights": "random", "weights_sha256": "", "image_size": size}
    params = with_settings({}, settings | {"batch_size": BATCH})
    model = build_model_from_params(params, 2)
    images = np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3), np.uint8)
    found = {"backbone": params.backbone, "inference": cpu_time(lambda: model.predict_on_batch(images))}
    if params.optimizer != "lbfgs":
        compile_model(model, params, make_schedule(params, 2, 10, 10 * BATCH))
        batch = Batch(images, np.eye(2, dtype=np.float32)[np.arange(BATCH) % 2], np.ones(BATCH, np.float32))
        found["training"] = cpu_time(lambda: train_step(model, batch, params))
    return found | {"memory": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def cpu_time(call: Any) -> float:
    """Return the CPU seconds per image of the fastest call, after one call to compile."""
    call()
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times) / BATCH


def main() -> None:
    parser = table_parser(__doc__)
    parser.add_argument("--rows", nargs="+", default=["transfer", "transfer_convnext"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 160])
    parser.add_argument("--one", nargs=2, metavar=("ROW", "SIZE"), help="measure in this process and print JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]))))
        return
    table = []
    for row in options.rows:
        for size in options.sizes:
            command = [sys.executable, __file__, "--one", row, str(size)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found = json.loads(output.splitlines()[-1])
            times = [f"{1000 * found[key]:.0f}" if key in found else "" for key in ("inference", "training")]
            table.append([f"`{found['backbone']}` (`{row}`)", str(size), *times, f"{found['memory'] / 2**30:.1f} GiB"])
            print(*table[-1], sep=" | ", flush=True)
    keep_table("backbone_cost", COLUMNS, table, options.record)


if __name__ == "__main__":
    main()
