"""The repository contains no secret."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECRETS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\bAKIA[0-9A-Z]{16}\b"  # AWS access key
    r"|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_\w{22,}"
    r"|\bhf_[A-Za-z0-9]{34}\b"
    r"|\bxox[abpr]-[A-Za-z0-9-]{10,}"
    r"|(?i:password|secret|token)[\"']?\s*[:=]\s*[\"'][A-Za-z0-9+/_-]{16,}[\"']"
)


def test_no_tracked_file_contains_a_secret():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = []
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.is_file() and path.stat().st_size < 1_000_000:
            found += [f"{name}: {hit.group()[:20]}" for hit in SECRETS.finditer(path.read_text(errors="ignore"))]
    assert not found


def test_patterns_match_a_secret():
    assert SECRETS.search("aws = " + "AKIA" + "ABCDEFGHIJKLMNOP")
    assert SECRETS.search("-----BEGIN OPENSSH " + "PRIVATE KEY-----")
