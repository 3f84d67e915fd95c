"""What holds for the package as a whole: what it imports, what it exports, where it runs."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import captum_alignment
from captum_alignment import attr, metrics, robust, study, training

ROOT = Path(captum_alignment.__file__).parent
FLOORS = {"_optional": 0, "_core": 0, "attr": 1, "metrics": 1, "robust": 1, "training": 1, "study": 2}
MODULES = sorted(ROOT.rglob("*.py"))


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_import_loads_no_heavy_or_optional_package():
    code = "import sys, captum_alignment, captum_alignment.training; print(*sys.modules)"
    loaded = set(run(code).stdout.split())
    assert "captum_alignment.robust" in loaded
    assert not loaded & {"torchvision", "lightning", "pandas", "pyarrow", "sklearn", "captum_alignment.study"}


def test_import_works_without_git_and_with_warnings_as_errors(tmp_path):
    # An empty folder as PATH has no git; the variable that this process has set by its own import must not help.
    result = run(
        "import os; os.environ.pop('GIT_PYTHON_REFRESH', None); import captum_alignment; print('fine')",
        PATH=str(tmp_path),
    )
    assert result.stdout == "fine\n", result.stderr


@pytest.mark.parametrize("room", [captum_alignment, attr, metrics, robust, study, training])
def test_every_public_name_is_there_and_documented(room):
    assert room.__doc__
    assert len(set(room.__all__)) == len(room.__all__)  # ruff sorts them
    for name in room.__all__:
        assert getattr(room, name).__doc__


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_only_and_modules_stay_short(path):
    source = path.read_text()
    assert len(source.splitlines()) <= 250
    room = path.relative_to(ROOT).parts[0]
    for node in ast.walk(ast.parse(source)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            parts = name.split(".")
            if parts[0] == "captum" and room in FLOORS and any(part.startswith("_") for part in parts):
                assert path.name == "_captum.py", "Captum's private names are imported in one module"
            if parts[0] != "captum_alignment" or room not in FLOORS or len(parts) == 1:
                continue
            assert parts[1] == room or FLOORS[parts[1]] < FLOORS[room], f"{path.name} imports {name}"
            private = any(part.startswith("_") for part in parts[2:])
            assert not (room == "study" and parts[1] != "study" and (private or parts[1] == "_core")), (
                "the application uses public names only"
            )
