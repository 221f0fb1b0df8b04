"""What the documentation says is so: links, commands, named tests, generated pages."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer

from leaf.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
IDS = [page.name for page in PAGES]


def commands(page):
    """Every line of the fenced blocks without a language, and of those marked sh, without comments."""
    for block in re.findall(r"^```(?:sh)?\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        for line in block.splitlines():
            words = re.sub(r"^\$ ", "", re.sub(r"\s{2,}#.*", "", line)).strip()
            yield from words.split(" && ")


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_link_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_leaf_command_is_one_that_leaf_takes(page):
    group = typer.main.get_command(app)
    for command in commands(page):
        if not command.startswith("leaf ") or "…" in command:
            continue
        words = shlex.split(command.split(" | ")[0].split(" > ")[0])[1:]
        name, context, arguments = group.resolve_command(typer.Context(group, info_name="leaf"), words)
        context.make_context(name, list(arguments), resilient_parsing=False)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_make_target_exists(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M):
        assert target in targets


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_test_that_is_named_exists(page):
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text(encoding="utf-8")):
        assert (ROOT / file).is_file(), file
        assert not name or f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), name


def test_the_table_of_parameters_is_up_to_date():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert (ROOT / "docs/parameters.md").read_text(encoding="utf-8") == generate.parameters_md()
