import sys
from types import SimpleNamespace

import pytest

from captum_alignment.study.load import did_you_mean, short_name
from captum_alignment.study.load._factories import Factory, call_factory, parse_factory, reason


def call(spec, ready=SimpleNamespace):
    return call_factory(parse_factory(spec, "--model"), "--model", ready=ready)


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("zoo.py:load", Factory("zoo.py", "load")),
        ("a/zoo.py:load()", Factory("a/zoo.py", "load", called=True)),
        ('zoo.py:load("kw", [1, 2], size=-3)', Factory("zoo.py", "load", ("kw", [1, 2]), {"size": -3}, True)),
        ("package.module:factory", Factory("package.module", "factory")),
        (r"C:\models\zoo.py:load", Factory(r"C:\models\zoo.py", "load")),
        ('D:odd/a:b/zoo.py:load("c:d")', Factory("D:odd/a:b/zoo.py", "load", ("c:d",), {}, True)),
        ('zoo.py:load(":f()#")', Factory("zoo.py", "load", (":f()#",), {}, True)),
        (r'zoo.py: load("C:\models")', Factory("zoo.py", "load", (r"C:\models",), {}, True)),
    ],
)
def test_specifications(spec, expected):
    assert parse_factory(spec, "--model") == expected


@pytest.mark.parametrize(
    "spec",
    [
        *("zoo.py:", ":load", "zoo.py", "zoo.py:a b", "zoo.py:load(", "zoo.py:1 + 1", "zoo.py:a.b", "zoo.py:a()()"),
        *("zoo.py:load(open('x'))", "zoo.py:load(x)", "zoo.py:load(*[1])", "zoo.py:load(**{'a': 1})", "zoo.py:a[0]"),
        "zoo.py:load(f'{1}')",
    ],
)
def test_anything_but_a_name_or_a_literal_call_is_refused(spec):
    with pytest.raises(ValueError, match=r"^--model: got .*, expected "):
        parse_factory(spec, "--model")


def test_short_names_have_no_folders():
    assert short_name('../a/zoo.py:load("b/c")') == 'zoo.py:load("b/c")'
    assert short_name(r"C:\a\zoo.py:load") == "zoo.py:load"
    assert short_name("package.module:factory") == "package.module:factory"


def test_a_file_reaches_its_siblings_even_late_and_leaves_the_path_as_it_was(tmp_path, monkeypatch):
    sibling, late = f"sibling_{tmp_path.name}", f"late_{tmp_path.name}"
    write(tmp_path, **{sibling: "A = 1", late: "B = 2"})
    write(tmp_path, own=f"import {sibling} as s\ndef make(c):\n    import {late} as l\n    return s.A, l.B, c")
    before = list(sys.path)
    assert call(f"{tmp_path}/own.py:make(3)") == (1, 2, 3)
    monkeypatch.chdir(tmp_path)
    assert call("own.py:make(c=4)") == (1, 2, 4)
    assert call("./own.py:make(5)") == (1, 2, 5)
    assert sys.path == before
    assert "own" not in sys.modules


def test_a_module_in_the_current_folder(tmp_path, monkeypatch):
    name = f"module_{tmp_path.name}"
    write(tmp_path, **{name: "def make(): return 1"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert call(f"{name}:make") == 1


def test_what_is_ready_is_taken_unless_it_is_called(tmp_path):
    write(tmp_path, own="from types import SimpleNamespace\nthing = SimpleNamespace(a=1)\nfactory = SimpleNamespace")
    assert call(f"{tmp_path}/own.py:thing").a == 1
    assert call(f"{tmp_path}/own.py:factory(a=2)").a == 2
    with pytest.raises(TypeError, match=r"'thing' of .*own.py is of type SimpleNamespace, expected a function"):
        call(f"{tmp_path}/own.py:thing()")


def test_dataclasses_of_a_file(tmp_path):
    # They look up the module they are defined in.
    text = "from __future__ import annotations\nfrom dataclasses import dataclass, KW_ONLY\n"
    write(tmp_path, own=text + "@dataclass\nclass A:\n    _: KW_ONLY\n    x: int = 3")
    assert call(f"{tmp_path}/own.py:A").x == 3


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("absent.py:make", FileNotFoundError, r"no file .*absent\.py$"),
        ("onw.py:make", FileNotFoundError, r"no file .*onw\.py; did you mean own\.py\?"),
        ("notes.txt:make", ValueError, r".*notes\.txt is no Python file"),
        ("own.py:mak", ValueError, r".*own\.py has no 'mak'; did you mean make\?"),
        ("own.py:zzz", ValueError, r".*own\.py has no 'zzz'$"),
        ("own.py:NUMBER", TypeError, "'NUMBER' of .* is of type int, expected a function"),
        ("own.py:fails", ValueError, r"fails\(\) of .*own\.py raised KeyError: 'kw'$"),
        ("own.py:make(1)", ValueError, r"make\(\) of .* raised TypeError: make\(\) takes 0 positional"),
        ("own.py:exits", ValueError, r"exits\(\) of .* raised SystemExit: 3"),
        ("broken.py:make", ValueError, r".*broken\.py raised SyntaxError: "),
        ("needs.py:make", ValueError, r".*needs\.py raised ModuleNotFoundError: No module named 'no_such_thing'"),
    ],
)
def test_what_goes_wrong_in_a_file_is_one_sentence(spec, kind, message, tmp_path):
    own = "import sys\nNUMBER = 1\ndef make(): pass\ndef fails(): raise KeyError('kw')\ndef exits(): sys.exit(3)"
    write(tmp_path, own=own, broken="def make(:", needs="import no_such_thing")
    (tmp_path / "notes.txt").write_text("notes")
    modules = set(sys.modules)
    with pytest.raises(kind, match=f"^--model: {message}") as caught:
        call(f"{tmp_path}/{spec}")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None or "no file" in message or "no Python" in message or kind is TypeError
    assert not {name for name in set(sys.modules) - modules if "broken" in name or "needs" in name}


def test_no_such_module(tmp_path, monkeypatch):
    name = f"needs_{tmp_path.name}"
    write(tmp_path, **{name: "import no_such_thing"})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=r"--model: no module 'no_such.thing', neither installed") as caught:
        call("no_such.thing:make")
    assert caught.value.name is None  # it is no optional dependency
    with pytest.raises(ValueError, match=f"{name} raised ModuleNotFoundError: No module named 'no_such_thing'"):
        call(f"{name}:make")


def test_words_for_sentences():
    assert did_you_mean("resnet5O", ["resnet50", "vgg11"]) == "; did you mean resnet50?"
    assert did_you_mean("vgg1", ["vgg11"], prefix="torchvision:") == "; did you mean torchvision:vgg11?"
    assert did_you_mean("x", ["resnet50"]) == ""
    assert reason(ValueError("first\nsecond")) == "ValueError: first"
    assert reason(EOFError()) == "EOFError"
