"""Send requests to a target and read the answers.

The command line is always `python3 -` and the request is data on stdin, so no shell reads user input.
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
# Never prompt, refuse new or changed host keys, and detect a dead connection within a minute.
SSH_OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "ConnectTimeout=10",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=3",
)


class ConnectionLostError(LeafError):
    """The target is unreachable; its jobs continue."""


class Host:
    """This machine, or `name` over OpenSSH with the configuration file `config`."""

    def __init__(self, name: str | None = None, python: str | None = None, config: str | None = None) -> None:
        self.name = name
        python = python or (sys.executable if name is None else "python3")
        self.command = [python, "-"]
        if name is not None:
            options = [part for option in SSH_OPTIONS for part in ("-o", option)]
            settings = ["-F", config] if config else []
            self.command = ["ssh", *settings, *options, "--", name, f"{shlex.quote(python)} -"]

    def call(self, verb: str, **request: Any) -> dict[str, Any]:
        """Send the request `verb` and return the answer.

        Raises:
            ConnectionLostError: if the target is unreachable.
            LeafError: if the target rejects the request.
        """
        program = files("leaf.runner.agent").joinpath("target.py").read_text(encoding="utf-8")
        # ASCII JSON inside a JSON string is a valid Python literal, and its content cannot end it early.
        data = json.dumps(json.dumps({"verb": verb, **request}))
        program += f"\n\nanswer_to(json.loads({data}))\n"
        try:
            answer = subprocess.run(
                self.command, input=program.encode(), capture_output=True, timeout=TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            raise ConnectionLostError(f"{self}: no response within {TIMEOUT} s") from None
        except FileNotFoundError:
            raise LeafError(f"{self.command[0]}: not found. Install it.") from None
        for line in answer.stdout.decode("utf-8", "replace").splitlines():
            if line.startswith(ANSWER):
                result: dict[str, Any] = json.loads(line[len(ANSWER) :])
                if "unreachable" in result:
                    raise ConnectionLostError(f"{self}: {result['unreachable']}")
                if "error" in result:
                    raise LeafError(f"{self}: {result['error']}")
                return result
        raise self._no_answer(answer.returncode, answer.stderr.decode("utf-8", "replace"))

    def _no_answer(self, status: int, stderr: str) -> LeafError:
        last = next((line for line in reversed(stderr.splitlines()) if line.strip()), "no message")
        if "Host key verification failed" in stderr:
            return LeafError(
                f"{self}: its host key is unknown or has changed. Ask its administrator for the correct key and add it "
                "to ~/.ssh/known_hosts."
            )
        if "Permission denied" in stderr:
            return LeafError(f"{self}: {last}. Authorize a key of your ssh-agent or ssh configuration there.")
        if self.name is not None and status == 255:
            return ConnectionLostError(f"{self}: cannot be reached: {last}")
        return LeafError(f"{self}: {self.command[-1]} failed: {last}. The target requires Python 3.8 or newer.")

    def __str__(self) -> str:
        return self.name or "this machine"
