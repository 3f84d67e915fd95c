"""Every example and every Python block of the README and the pages runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.name != "digits.py")


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_example(script, tmp_path):
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) > 3
    assert not re.search(r"\bnan\b", result.stdout)


def run_blocks(page: Path) -> dict:
    namespace: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        exec(compile(block, page.name, "exec"), namespace)
    return namespace


def test_readme():
    namespace = run_blocks(ROOT / "README.md")
    assert namespace["rho"].shape == (16,)
    assert namespace["term"].ndim == 0


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.stem)
def test_page(page):
    run_blocks(page)
