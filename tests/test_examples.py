"""Every example runs, and every Python block of the README and the pages; cells run when the site is built."""

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


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", blocks(ROOT / "README.md"))
def test_every_block_of_the_readme_runs_alone(block):
    exec(compile(block, "README.md", "exec"), {"__name__": "block"})


PAGES = [page for page in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in page.parts and blocks(page)]
PAGES = [page for page in PAGES if page.stem != "ecosystem"]  # which has a test of its own


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_one_after_the_other(page):
    namespace: dict = {"__name__": "page"}
    for block in blocks(page):
        exec(compile(block, page.name, "exec"), namespace)
