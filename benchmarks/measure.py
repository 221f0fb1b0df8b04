"""Time two functions side by side and record the result as a row; shared by the scripts of `make bench`.

Times on a shared machine are noisy, but the ratio of two functions that alternate in one run is stable. A row is
`{name, ours, other, ratio, spread, target, met, memory}`: median seconds, the ratio of the medians, the quartiles of
the ratios of paired runs, the target as `>= 10` (other ÷ ours) or `<= 1.1` (ours ÷ other), and, if requested, the
peak memory of both sides in MiB.
"""

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results.json"
DETAILS = RESULTS.with_name("details.json")
SIZES = ("tiny", "bench", "full")


def arguments(description: str | None, **choices: Sequence[str]) -> argparse.Namespace:
    """Parse the options of all scripts: `--size tiny|bench|full`, and `--no-record` to keep results.json unchanged.

    Each of `choices` becomes an option whose default is its first value.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="bench", help="tiny: for tests; full: the largest")
    parser.add_argument("--no-record", dest="record", action="store_false", help="do not update results.json")
    for name, values in choices.items():
        parser.add_argument(f"--{name}", choices=values, default=values[0])
    options = parser.parse_args()
    options.record = options.record and options.size != "tiny"
    return options


def alternate(ours: Callable[[], Any], other: Callable[[], Any], repeats: int = 5) -> tuple[list[float], list[float]]:
    """Run both functions alternately, after one warm-up each, and return the seconds of each run."""
    times = in_turn((ours, other), repeats)
    return times[0], times[1]


def in_turn(functions: Sequence[Callable[[], Any]], repeats: int, warm: bool = True) -> list[list[float]]:
    """Run the functions in turn and return the seconds of each run; with `warm`, run each once beforehand."""
    for function in functions if warm else ():
        function()
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for function, kept in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            kept.append(time.perf_counter() - start)
    return times


def row(
    name: str, ours: list[float], other: list[float], target: str, memory: dict[str, float] | None = None
) -> dict[str, Any]:
    """Return the row of a measurement; `target` is `>= X` for other ÷ ours, `<= X` for ours ÷ other."""
    sign, _, bound = target.partition(" ")
    a, b = (other, ours) if sign == ">=" else (ours, other)
    ratio = statistics.median(a) / statistics.median(b)
    each = sorted(x / y for x, y in zip(a, b, strict=True))
    quartiles = statistics.quantiles(each, n=4) if len(each) > 1 else [each[0]] * 3
    return {
        "name": name,
        "ours": round(statistics.median(ours), 5),
        "other": round(statistics.median(other), 5),
        "ratio": round(ratio, 3),
        "spread": [round(quartiles[0], 3), round(quartiles[2], 3)],
        "target": target,
        "met": ratio >= float(bound) if sign == ">=" else ratio <= float(bound),
        "memory": memory,
    }


def report(result: dict[str, Any], record: bool) -> None:
    """Print a row and, with `record`, replace the row of the same name in results.json."""
    print(
        f"{result['name']}: {result['ratio']} ({result['spread'][0]} to {result['spread'][1]}), "
        f"target {result['target']}: {'met' if result['met'] else 'MISSED'}; "
        f"ours {result['ours']} s, other {result['other']} s"
        + (f", peak memory {result['memory']}" if result["memory"] else "")
    )
    if record:
        rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
        rows = [kept for kept in rows if kept["name"] != result["name"]] + [result]
        RESULTS.write_text(json.dumps(sorted(rows, key=lambda kept: kept["name"]), indent=2) + "\n")


def detail(name: str, values: Any, record: bool) -> None:
    """Record additional values as `name` in details.json for docs/performance.md."""
    if record:
        kept = json.loads(DETAILS.read_text()) if DETAILS.exists() else {}
        kept[name] = values
        DETAILS.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


def peak_memory(function: Callable[[], Any]) -> float:
    """Return the additional peak memory of a call of `function`, in MiB, in a forked process (Linux)."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def child() -> None:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak memory
        before = _status("VmRSS")
        function()
        sender.send((_status("VmHWM") - before) / 1024)

    process = context.Process(target=child)
    process.start()
    sender.close()
    try:
        return round(receiver.recv(), 1)
    except EOFError:
        raise RuntimeError(f"the measured call failed with exit status {process.exitcode}") from None
    finally:
        process.join()


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise KeyError(field)
