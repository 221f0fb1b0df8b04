"""Write docs/parameters.md and, with --params, the comments of params.yaml, from the schema in leaf/params.py.

python docs/generate.py            # docs/parameters.md
python docs/generate.py --params   # params.yaml too, with the schema's defaults
"""

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

from leaf import params

ROOT = Path(__file__).parent.parent
SECTIONS = {
    "dataset": "data",
    "image_size": "ingest",
    "references": "clean",
    "validation_size": "split",
    "balance": "balance",
    "backbone": "train: the network",
    "batch_size": "train: the fit",
    "learning_rate": "train: the learning rate, set before every update",
    "augmentation": "train: random changes of the training images",
    "threshold": "evaluate",
}


def scalar(value: Any) -> str:
    """A value as YAML in one line."""
    if isinstance(value, float):
        return yaml.safe_dump(value).split("\n")[0] if "e" not in repr(value) else f"{value:.10f}".rstrip("0")
    return yaml.safe_dump(value, default_flow_style=True).split("\n")[0]


def params_yaml() -> str:
    """params.yaml with every default, one commented line a key."""
    lines = ["# Every choice of the pipeline. Change one here, or for one run: dvc exp run -S dropout=0.2"]
    group = ""
    for key, entry in params.keys().items():
        head, _, name = key.partition(".")
        if head in SECTIONS and head != group:
            lines += ["", f"# {SECTIONS[head]}"]
        if name and head != group:
            lines.append(f"{head}:")
        group = head
        line = f"  {name}: " if name else f"{head}: "
        lines.append(f"{line}{scalar(entry['default'])}".ljust(32) + f"  # {entry['why']}; {entry['valid']}")
    return "\n".join(lines) + "\n"


def parameters_md() -> str:
    """docs/parameters.md: a table of every key with its default, its valid values and its reason."""
    lines = [
        "# Every parameter",
        "",
        "Generated from `leaf/params.py` by `python docs/generate.py`; a test checks that it is up to date.",
        "Set a key in `params.yaml`, or for one run with `dvc exp run -S key=value`.",
        "",
        "| key | default | valid | what it does |",
        "| --- | --- | --- | --- |",
    ]
    for key, entry in params.keys().items():
        default = json.dumps(entry["default"]).replace("|", "\\|")
        lines.append(f"| `{key}` | `{default}` | {entry['valid']} | {entry['why']} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", action="store_true", help="write params.yaml anew, with the defaults")
    if parser.parse_args().params:
        (ROOT / "params.yaml").write_text(params_yaml(), encoding="utf-8")
    (ROOT / "docs/parameters.md").write_text(parameters_md(), encoding="utf-8")


if __name__ == "__main__":
    main()
