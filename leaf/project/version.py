"""The installed version of leaf and its commit."""

import subprocess
from importlib import import_module
from pathlib import Path

import leaf


def describe_version() -> str:
    """Return `leaf VERSION (COMMIT)`; the commit comes from git in a checkout, else from the build."""
    root = Path(leaf.__file__).parents[1]
    commit = ""
    if (root / ".git").exists():
        command = ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False).stdout.strip()
    if not commit:
        try:
            commit = str(import_module("leaf._version").__commit_id__ or "unknown").removeprefix("g")
        except (ImportError, AttributeError):
            commit = "unknown"
    return f"leaf {leaf.__version__} ({commit})"
