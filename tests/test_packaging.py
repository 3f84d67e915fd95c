"""What users install: the wheel and the sources, without the repository and without the optional dependencies."""

import email
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import captum_alignment
from captum_alignment import study, training

ROOT = Path(captum_alignment.__file__).parents[1]
PYTHONS = [f"3.{minor}" for minor in range(10, 15)]


def python(*arguments, cwd, path, **options):
    """Run the interpreter in ``cwd`` with ``path`` as its only further folder of modules."""
    environment = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(kind, source, folder):
    folder.mkdir(exist_ok=True)
    code = f"import sys; from hatchling.build import build_{kind}; print(build_{kind}(sys.argv[1]))"
    return folder / python("-c", code, str(folder), cwd=source, path="").split()[-1]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        return email.message_from_string(archive.read(name).decode("utf-8"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder into which the wheel was installed, without network."""
    target = tmp_path_factory.mktemp("site")
    options = [
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-compile",
        "--disable-pip-version-check",
        "--target",
        str(target),
    ]
    python("-m", "pip", "install", *options, str(wheel), cwd=target, path="")
    return target


def package_files():
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "captum_alignment").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_the_package_and_its_licence_only(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = {name for name in names if ".dist-info/" in name}
    assert names - info == package_files()
    assert "captum_alignment/py.typed" in names
    assert {name.partition("/")[2] for name in info} == {
        "METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE",
    }  # fmt: skip


def test_the_sources_hold_what_their_tests_need_and_build_the_same_wheel(sources, wheel, tmp_path):
    with tarfile.open(sources) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    assert {path.name for path in folder.iterdir()} == {
        "captum_alignment", "benchmarks", "docs", "examples", "tests", ".gitignore", "CHANGELOG.md", "CITATION.cff",
        "CONTRIBUTING.md", "LICENSE", "Makefile", "PKG-INFO", "README.md", "pyproject.toml",
    }  # fmt: skip
    assert not [path for path in folder.rglob("*") if "__pycache__" in path.parts or "_build" in path.parts]
    again = build("wheel", folder, tmp_path / "again")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert [(i.filename, i.CRC) for i in one.infolist()] == [(i.filename, i.CRC) for i in other.infolist()]


def test_the_metadata_is_what_an_index_shows(metadata):
    assert metadata["Version"] == captum_alignment.__version__
    assert metadata["License-Expression"] == "MIT"
    classifiers = metadata.get_all("Classifier")
    assert not [name for name in classifiers if name.startswith("License ::")]  # PEP 639: the expression says it
    versions = [name.rpartition(" :: ")[2] for name in classifiers if re.search(r"Python :: 3\.\d+$", name)]
    assert versions == PYTHONS
    assert metadata["Requires-Python"] == f">={PYTHONS[0]}"
    assert set(metadata.get_all("Provides-Extra")) >= {"study", "skorch", "test", "docs", "lint"}
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_the_readme_has_nothing_that_breaks_on_an_index(metadata):
    description = metadata.get_payload()
    targets = re.findall(r"\]\(([^)]*)\)", description) + re.findall(r"(?:src|href)=\"([^\"]*)\"", description)
    assert targets
    assert [target for target in targets if not target.startswith("https://")] == []


RUN_BLOCKS = """
import pathlib, re, sys
import captum_alignment
assert str(pathlib.Path(captum_alignment.__file__).parents[1]) == sys.argv[1], captum_alignment.__file__
blocks = re.findall(r"```python\\n(.*?)```", pathlib.Path("README.md").read_text("utf-8"), re.DOTALL)
for block in blocks:
    exec(compile(block, "README.md", "exec"), {"__name__": "block"})
print(len(blocks), "blocks")
"""


def test_every_block_of_the_readme_runs_from_the_wheel_alone(installed, metadata, tmp_path):
    (tmp_path / "README.md").write_text(metadata.get_payload(), encoding="utf-8")
    printed = python("-c", RUN_BLOCKS, str(installed), cwd=tmp_path, path=installed)
    assert int(re.findall(r"(\d+) blocks", printed)[0]) >= 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [path.name for path in sorted((ROOT / "examples").glob("*.py")) if path.stem != "digits"]
)
def test_every_example_runs_from_the_wheel_alone(name, installed, tmp_path):
    for path in (ROOT / "examples").glob("*.py"):
        (tmp_path / path.name).write_text(path.read_text("utf-8"), encoding="utf-8")
    assert python(name, cwd=tmp_path, path=installed)


def test_the_command_runs_from_the_wheel(installed, tmp_path):
    assert "evaluate" in python("-m", "captum_alignment", "--help", cwd=tmp_path, path=installed)


WITHOUT = """
import sys
for name in ("lightning", "pytorch_lightning", "skorch", "pandas", "pyarrow", "sklearn", "jinja2", "safetensors"):
    sys.modules[name] = None
import captum_alignment
"""


@pytest.fixture(scope="module")
def without_extras():
    """What each line of ``USES`` prints in one process that has none of the optional dependencies."""
    code = WITHOUT + f"rooms = {ROOMS}\nuses = {list(USES)}\n" + ASK
    return python("-W", "error", "-c", code, cwd=ROOT, path=ROOT).splitlines()


ROOMS = ["", ".attr", ".metrics", ".robust", ".training", ".study"]
STUDY = "pip install 'captum-alignment[study]'"
USES = {
    "training.LipschitzRegularization(1e-3)": f"LipschitzRegularization needs lightning: {STUDY}",
    "training.RegularizationCallback(None)": f"RegularizationCallback needs lightning: {STUDY}",
    "training.AdversarialTraining(epsilon=1.0)": f"AdversarialTraining needs lightning: {STUDY}",
    "type('Mine', (training.AdversarialTraining,), {})": f"AdversarialTraining needs lightning: {STUDY}",
    "training.SkorchRegularization(None)": "SkorchRegularization needs skorch: pip install 'captum-alignment[skorch]'",
    "study.read_records('runs/mine')": f"read_records needs pandas: {STUDY}",
    "study.evaluate(None, None)": f"evaluate needs pandas: {STUDY}",
    "analyse(torch.ones(1, 2)).to_dataframe()": f"to_dataframe needs pandas: {STUDY}",
}
ASK = """
import importlib, torch
from captum_alignment import attr, metrics, robust, study, training
for room in rooms:
    names = {}
    exec(f"from captum_alignment{room} import *", names)
    module = importlib.import_module("captum_alignment" + room)
    found = all(hasattr(module, name) for name in module.__all__)
    print(set(module.__all__) <= set(names), found, hasattr(module, "NoSuchName"))
analyse = lambda images: metrics.linear_analysis(torch.nn.Linear(2, 2), images)
for use in uses:
    try:
        eval(use)
    except ImportError as error:
        print(error)
    else:
        print("it worked")
"""


def test_star_imports_and_hasattr_work_without_optional_dependencies(without_extras):
    assert without_extras[: len(ROOMS)] == ["True True False"] * len(ROOMS)


def test_what_needs_an_optional_dependency_names_the_extra_that_brings_it(without_extras):
    assert without_extras[len(ROOMS) :] == list(USES.values())


def test_names_that_load_on_first_use_are_the_real_ones():
    for room in (training, study):
        for name in room.__all__:
            assert getattr(room, name).__module__.startswith("captum_alignment.")
