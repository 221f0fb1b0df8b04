"""The workflows in .github are valid and have minimal permissions. actionlint runs in the workflow `tests`."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

WORKFLOWS = Path(__file__).parents[1] / ".github" / "workflows"
TOOLS = {
    "check-jsonschema": ["--builtin-schema", "vendor.github-workflows", *map(str, sorted(WORKFLOWS.glob("*.yml")))],
    "zizmor": ["--offline", "--no-progress", str(WORKFLOWS)],
}


@pytest.mark.parametrize("tool", TOOLS)
def test_workflows_pass_the_linters(tool: str) -> None:
    program = shutil.which(tool, path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip(f"{tool} is not installed; requirements-dev.txt has it")
    answer = subprocess.run([program, *TOOLS[tool]], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
