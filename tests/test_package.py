"""What holds for the package as a whole: what it imports, what it exports, where it runs."""

import ast
import os
import subprocess
import sys
from importlib import import_module
from inspect import isclass, isfunction
from pathlib import Path

import pytest

import captum_alignment
from captum_alignment import attr, metrics, robust, study, training

ROOT = Path(captum_alignment.__file__).parent
FLOORS = {"_optional": 0, "_core": 0, "attr": 1, "metrics": 1, "robust": 1, "training": 1, "study": 2}
#: The floors of the application's rooms; a room imports the faces of rooms on lower floors.
ROOMS = {
    **{"store": 1, "load": 2, "page": 2, "fit": 3, "evaluation": 3, "compare": 4, "roar": 4},
    **{"cohort": 5, "faithfulness": 6, "cli": 7},
}
MODULES = sorted(ROOT.rglob("*.py"))
ROOM_MODULES = sorted(path for room in ROOMS for path in (ROOT / "study" / room).glob("*.py"))


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_import_loads_no_heavy_or_optional_package():
    code = "import sys, captum_alignment as ca; ca.adversarial_distance, ca.training; print(*sys.modules)"
    loaded = set(run(code).stdout.split())
    assert "captum_alignment.robust" in loaded
    assert not loaded & {"torchvision", "lightning", "pandas", "pyarrow", "sklearn", "captum_alignment.study"}


def test_the_package_alone_loads_nothing_slow_and_has_its_names_and_rooms():
    assert not set(run("import sys, captum_alignment; print(*sys.modules)").stdout.split()) & {"torch", "numpy"}
    code = "import captum_alignment as ca; print(*dir(ca)); print(ca.metrics.alignment is ca.alignment, ca.robust)"
    done = run(code)
    names, same = done.stdout.splitlines()
    assert {*captum_alignment.__all__, "attr", "metrics", "robust", "study", "training"} <= set(names.split())
    assert same.startswith("True <module 'captum_alignment.robust'"), done.stderr
    assert not hasattr(captum_alignment, "NoSuchName")


def test_import_works_without_git_and_with_warnings_as_errors(tmp_path):
    # An empty folder as PATH has no git; the variable that this process has set by its own import must not help.
    result = run(
        "import os; os.environ.pop('GIT_PYTHON_REFRESH', None); from captum_alignment.robust import *; print('fine')",
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
            if parts[0] == "foolbox":
                assert path.name == "_foolbox_names.py", "foolbox is imported in one module, without its warning"
            if parts[0] != "captum_alignment" or room not in FLOORS or len(parts) == 1:
                continue
            assert parts[1] == room or FLOORS[parts[1]] < FLOORS[room], f"{path.name} imports {name}"
            private = any(part.startswith("_") for part in parts[2:])
            assert not (room == "study" and parts[1] != "study" and (private or parts[1] == "_core")), (
                "the application uses public names only"
            )


@pytest.mark.parametrize("room", ROOMS)
def test_every_name_of_a_face_is_there_and_its_functions_are_documented(room):
    face = import_module(f"captum_alignment.study.{room}")
    assert face.__doc__
    assert set(face.__all__) <= set(dir(face))
    for name in face.__all__:
        value = getattr(face, name)
        assert value.__doc__ or not (isfunction(value) or isclass(value)), name


def crossings(source: str, room: str) -> list[str]:
    """The imports in ``source``, a module of the application's ``room``, that leave it by another way than a face
    below, or enter it by its own face.
    """
    wrong = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            wrong += [f"import {a.name}" for a in node.names if a.name.startswith("captum_alignment.study")]
        if not isinstance(node, ast.ImportFrom):
            continue
        names = [a.name for a in node.names]
        _, _, below = (node.module or "").partition("captum_alignment.study")
        other, _, module = below.removeprefix(".").partition(".")
        if node.level or not below:
            right = not node.level and node.module != "captum_alignment.study"
        elif other == room:
            right = bool(module) or all(name.startswith("_") for name in names)
        else:
            face = not module and not any(name.startswith("_") for name in names)
            right = face and ROOMS.get(other, max(ROOMS.values())) < ROOMS[room]
        if not right:
            wrong.append(f"from {'.' * node.level}{node.module} import {', '.join(names)}")
    return wrong


@pytest.mark.parametrize(
    ("source", "room", "right"),
    [
        ("from captum_alignment.study.store import whole_file", "page", True),
        ("from captum_alignment.study.page._text import number", "page", True),
        ("from captum_alignment.study.cli import _roar", "cli", True),
        ("from captum_alignment._optional import on_first_use", "fit", True),
        ("from captum_alignment.metrics import alignment_null", "evaluation", True),
        ("from captum_alignment.study.page import number", "page", False),  # its own face
        ("from captum_alignment.study.store._files import whole_file", "page", False),  # behind a face
        ("from captum_alignment.study.store import _files", "page", False),
        ("from captum_alignment.study.load import Split", "page", False),  # sideways
        ("from captum_alignment.study.compare import report", "evaluation", False),  # up
        ("def late():\n    from captum_alignment.study.cli import main", "cohort", False),
        ("from captum_alignment.study import evaluate", "cohort", False),  # the users' face
        ("from captum_alignment.study.elsewhere import name", "cli", False),
        ("from ..store import whole_file", "page", False),
        ("import captum_alignment.study.store", "page", False),
    ],
)
def test_the_check_of_rooms_tells_right_from_wrong(source, room, right):
    assert (not crossings(source, room)) is right


@pytest.mark.parametrize("path", ROOM_MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_of_the_application_import_faces_of_lower_floors(path):
    assert not crossings(path.read_text(), path.parent.name)


def test_every_module_of_the_application_is_in_a_room():
    found = {path.relative_to(ROOT / "study").parts for path in (ROOT / "study").rglob("*.py")}
    assert {parts[0] for parts in found if len(parts) == 2} == set(ROOMS)
    assert {parts for parts in found if len(parts) != 2} == {("__init__.py",)}


#: Modules without a test file of their own, under the one that runs them.
ELSEWHERE = {
    # What stands behind a user's call is tested by the call.
    "test_border.py": ["_core/_arguments.py"],
    "test_device.py": ["_core/_questions.py"],
    "test_packaging.py": ["_optional.py"],
    "_core/test_biases.py": ["_core/_names.py"],
    "_core/test_piecewise.py": [f"_core/_piecewise_{part}.py" for part in ("maxima", "rules", "trace")],
    "_core/test_repeatable.py": ["_core/_gradients.py"],
    "_core/test_sketch.py": ["_core/_nearest.py"],
    "_core/test_verified.py": ["_core/_foolbox.py", "_core/_foolbox_names.py"],
    "metrics/test_randomization.py": ["metrics/_layers.py"],
    "robust/test_certified_distance.py": ["robust/_certified_ball.py", "robust/_certified_relaxation.py"],
    "robust/test_distance.py": ["robust/_refine.py"],
    # Penalties and regularizers are rows of a table, on which every property is tested.
    "training/test_penalty_family.py": [
        *(f"training/_{name}.py" for name in ("alignment", "interpretation", "jacobian", "margin")),
        *(f"training/_{name}.py" for name in ("differences", "forward", "graph")),
    ],
    "training/test_new_penalties.py": [f"training/_{name}.py" for name in ("linear_regions", "perceptual", "trades")],
    # Parts of the callbacks, by trainings.
    "training/test_adversarial.py": ["training/_adversarial_callback.py"],
    "training/test_lightning.py": ["training/_batch.py", "training/_lipschitz_callback.py"],
    "training/test_lightning_models.py": ["training/_layer_inputs.py"],
    "training/test_losses.py": ["training/_loss_check.py", "training/_reduction.py"],
    "training/test_targets.py": ["training/_map_store.py"],
    # By the records of parts, by names alone, by what a user says for data.
    "study/evaluation/test_work.py": ["study/evaluation/_chance.py"],
    "study/cli/test_faithfulness.py": ["study/faithfulness/_config.py"],
    "study/load/test_datasets.py": ["study/load/_forms.py", "study/load/_hugging_face.py", "study/load/_npz.py"],
}


def test_every_module_has_its_test_file():
    tests, missing = Path(__file__).parent, set()
    for path in MODULES:
        name = path.relative_to(ROOT)
        own = tests / name.parent / f"test{path.stem}.py"
        if path.stem.strip("_") not in ("init", "main") and not own.is_file():
            missing.add(name.as_posix())
    assert sorted(missing) == sorted(module for modules in ELSEWHERE.values() for module in modules)
    assert all((tests / other).is_file() for other in ELSEWHERE)
