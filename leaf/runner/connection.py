"""Speak to a target: a request goes there as data, its answer comes back as data.

The command line is always the same, `python3 -`, so nothing that a user names is ever read by a shell.
"""

import json
import shlex
import subprocess
import sys
from importlib.resources import files
from typing import Any

from leaf.errors import LeafError
from leaf.runner.agent.target import ANSWER

TIMEOUT = 180  # seconds for one answer
# Never ask, never trust a new or changed key, notice a dead connection within a minute.
SSH_OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "ConnectTimeout=10",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=3",
)


class ConnectionLostError(LeafError):
    """The target could not be reached; what runs there goes on."""


class Host:
    """A machine that answers requests: this one, or `name` over OpenSSH with the file `config` as its settings."""

    def __init__(self, name: str | None = None, python: str | None = None, config: str | None = None) -> None:
        self.name = name
        python = python or (sys.executable if name is None else "python3")
        self.command = [python, "-"]
        if name is not None:
            options = [part for option in SSH_OPTIONS for part in ("-o", option)]
            settings = ["-F", config] if config else []
            self.command = ["ssh", *settings, *options, "--", name, f"{shlex.quote(python)} -"]

    def call(self, verb: str, **request: Any) -> dict[str, Any]:
        """The answer to `verb`. Raises ConnectionLostError where there is none, LeafError where it is a refusal."""
        program = files("leaf.runner.agent").joinpath("target.py").read_text(encoding="utf-8")
        # JSON in ASCII as a Python string: repr leaves nothing in it that could end the string.
        data = json.dumps(json.dumps({"verb": verb, **request}))
        program += f"\n\nanswer_to(json.loads({data}))\n"
        try:
            answer = subprocess.run(
                self.command, input=program.encode(), capture_output=True, timeout=TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            raise ConnectionLostError(f"{self}: no answer in {TIMEOUT} s") from None
        except FileNotFoundError:
            raise LeafError(f"{self.command[0]}: not found; install it") from None
        for line in answer.stdout.decode("utf-8", "replace").splitlines():
            if line.startswith(ANSWER):
                result: dict[str, Any] = json.loads(line[len(ANSWER) :])
                if "unreachable" in result:
                    raise ConnectionLostError(f"{self}: {result['unreachable']}")
                if "error" in result:
                    raise LeafError(f"{self}: {result['error']}")
                return result
        raise self._no_answer(answer.returncode, answer.stderr.decode("utf-8", "replace"))

    def _no_answer(self, status: int, complaint: str) -> LeafError:
        last = next((line for line in reversed(complaint.splitlines()) if line.strip()), "no message")
        if "Host key verification failed" in complaint:
            return LeafError(
                f"{self}: its host key is unknown or has changed; ask its administrator for the right one and put it "
                "into ~/.ssh/known_hosts"
            )
        if "Permission denied" in complaint:
            return LeafError(f"{self}: {last}; a key in ssh-agent or in your ssh configuration must be let in there")
        if self.name is not None and status == 255:
            return ConnectionLostError(f"{self}: cannot be reached: {last}")
        return LeafError(f"{self}: {self.command[-1]} failed: {last}; the target needs Python from 3.8")

    def __str__(self) -> str:
        return self.name or "this machine"
