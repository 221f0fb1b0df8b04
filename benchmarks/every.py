"""Run every benchmark in sequence and print the table of results.json. Called by `make bench`.

The exit status is 1 if a script failed. A missed target is printed but is not a failure; see
docs/performance.md.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from measure import RESULTS, arguments

SCRIPTS = ("clean", "clean_scale", "balance", "ingest", "train_step", "epoch", "pipeline", "probe", "predict")
SCRIPTS += ("gpu_step", "slopes")
LARGE = ("million",)  # run only with --size full


def main() -> None:
    options = arguments(__doc__)
    given = ["--size", options.size, *([] if options.record else ["--no-record"])]
    failed = []
    for name in (*SCRIPTS, *(LARGE if options.size == "full" else ())):
        start = time.monotonic()
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, Path(__file__).with_name(f"{name}.py"), *given]).returncode:
            failed.append(name)
        print(f"== {name}: {time.monotonic() - start:.0f} s", flush=True)
    rows = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    print(f"\n{'name':24}{'ratio':>10}  {'spread':20}{'target':10}")
    for row in rows:
        spread = f"{row['spread'][0]} to {row['spread'][1]}"
        print(f"{row['name']:24}{row['ratio']:>10}  {spread:20}{row['target']:10}{'met' if row['met'] else 'MISSED'}")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
