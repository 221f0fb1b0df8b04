"""Start an S3 server in a separate environment, because moto's dependencies conflict with `dvc[s3]`."""

import os
import subprocess
import sys
from pathlib import Path

from servers import await_port, free_port

REQUIREMENTS = ("moto[s3]==5.2.5", "flask==3.1.3", "flask-cors==6.0.5")  # required by moto's S3 server


def moto_python() -> Path:
    """Return the Python of an environment with moto, created once in the cache.

    Raises CalledProcessError if its packages cannot be installed.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "leaf" / "tests" / f"moto-5.2.5-{sys.version_info.major}.{sys.version_info.minor}"
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS]
        subprocess.run(install, check=True, capture_output=True, text=True, timeout=400)
        (home / "ready").touch()
    return python


class Bucket:
    """A running S3 server at `address` with a bucket named `leaf`."""

    def __init__(self, log: Path) -> None:
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        command = [str(moto_python()), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file)
        await_port(port, 60)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
