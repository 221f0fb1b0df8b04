"""From what a person typed to the images it means: files, folders, globs, and `-` for a list on standard input."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from leaf.errors import LeafError


def expand(arguments: Sequence[str], listed: TextIO, suffixes: frozenset[str]) -> list[str]:
    """Give the images that `arguments` name, in order, as given, each once.

    Args:
        arguments: files; folders (every image below, hidden ones left out, sorted); glob patterns that no shell
            expanded, `**` for any depth; `-` for one path a line on `listed`.
        listed: standard input.
        suffixes: what makes a file in a folder an image, lower case with the dot; a file that is named itself needs
            none.

    Raises:
        LeafError: where an argument names nothing at all. A named file that is missing is not looked at here, so
            that the rest is done.
    """
    images: dict[str, None] = {}
    for argument in arguments:
        lines = (line.rstrip("\r\n") for line in listed) if argument == "-" else [argument]
        for line in lines:
            if line:
                images |= dict.fromkeys(_one(line, suffixes))
    if not images:
        raise LeafError(
            f"{' '.join(arguments)}: no image; valid: {', '.join(sorted(suffixes))} files, or folders of them"
        )
    return list(images)


def _one(argument: str, suffixes: frozenset[str]) -> Iterator[str]:
    path = Path(argument)
    if path.is_dir():
        yield from (str(file) for file in sorted(_below(path)) if file.suffix.lower() in suffixes)
    elif not path.exists() and glob.has_magic(argument):
        matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        if not matches:
            raise LeafError(f"{argument}: the pattern matches no file")
        yield from (name for name in matches if not Path(name).is_dir())
    else:
        yield argument


def _below(folder: str | Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):  # a link may lead back up, without end
                yield from _below(entry.path)
            elif entry.is_file():
                yield Path(entry.path)
