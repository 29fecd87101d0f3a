"""What happens once a package is imported: after it, once, and without a trace in the package."""

import copy
import importlib
import importlib.util
import sys

import pytest

from graphwd.live.carrying.importing import when_imported

NAME = "imported_by_a_test"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The file of a package that can be imported; it is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    finders = list(sys.meta_path)
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / "inner.py").write_text("")
    file = folder / "__init__.py"
    file.write_text("from . import inner\ndone = True\n")
    yield file
    sys.meta_path[:] = finders
    for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
        del sys.modules[name]


@pytest.fixture
def calls():
    return []


@pytest.fixture
def note(calls):
    return lambda: calls.append(sys.modules[NAME].done)


def test_it_is_called_once_and_after_the_import(package, calls, note):
    finders = list(sys.meta_path)
    when_imported(NAME, note)
    assert NAME not in sys.modules
    assert importlib.util.find_spec(NAME) is not None
    importlib.import_module("colorsys")
    assert calls == []
    importlib.import_module(NAME)
    assert calls == [True]
    assert sys.meta_path == finders
    importlib.reload(sys.modules[NAME])
    assert calls == [True]


def test_it_is_called_now_when_the_package_is_there(package, calls, note):
    importlib.import_module(NAME)
    finders = list(sys.meta_path)
    when_imported(NAME, note)
    assert calls == [True]
    assert sys.meta_path == finders


def test_a_package_that_is_blocked_is_not_there(package, calls, note, monkeypatch):
    monkeypatch.setitem(sys.modules, NAME, None)
    when_imported(NAME, note)
    assert calls == []
    with pytest.raises(ModuleNotFoundError, match=f"import of {NAME} halted"):
        importlib.import_module(NAME)
    monkeypatch.delitem(sys.modules, NAME)
    importlib.import_module(NAME)
    assert calls == [True]


def test_a_package_keeps_its_own_loader(package, calls, note):
    plain = importlib.util.find_spec(NAME)
    when_imported(NAME, note)
    module = importlib.import_module(NAME)
    assert type(module.__loader__) is type(module.__spec__.loader) is type(plain.loader)
    assert module.__spec__.loader.get_source(NAME) == package.read_text()
    assert module.__path__ == plain.submodule_search_locations
    assert calls == [True]


def test_a_spec_that_is_not_executed_can_be_asked_for_the_source(package, note):
    when_imported(NAME, note)
    assert importlib.util.find_spec(NAME).loader.get_source(NAME) == package.read_text()


def test_it_waits_for_an_import_that_succeeds(package, calls, note):
    when_imported(NAME, note)
    text = package.read_text()
    package.write_text("raise RuntimeError('not now')")
    with pytest.raises(RuntimeError, match="not now"):
        importlib.import_module(NAME)
    assert calls == []
    package.write_text(text)
    importlib.invalidate_caches()
    importlib.import_module(NAME)
    assert calls == [True]


class Old:
    """A finder as Python 2 had them, which Python knew until 3.12."""

    def find_module(self, name, path=None):
        return None


@pytest.mark.filterwarnings("ignore::ImportWarning")
def test_finders_that_know_no_specs_are_passed_over(package, calls, note, monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [Old(), *sys.meta_path])
    when_imported(NAME, note)
    importlib.import_module(NAME)
    assert calls == [True]


def test_a_finder_that_was_taken_out_finds_nothing(package, calls, note):
    when_imported(NAME, note)
    finder = sys.meta_path.pop(0)
    assert finder.find_spec(NAME, None) is None
    importlib.import_module(NAME)
    assert calls == []


def test_a_loader_can_be_copied(package, note):
    when_imported(NAME, note)
    loader = copy.copy(importlib.util.find_spec(NAME).loader)
    assert loader.get_source(NAME) == package.read_text()


def test_a_package_that_does_not_exist_is_missing_as_ever(calls, note):
    finders = list(sys.meta_path)
    when_imported("no_such_package_anywhere", note)
    with pytest.raises(ModuleNotFoundError, match="no_such_package_anywhere"):
        importlib.import_module("no_such_package_anywhere")
    assert calls == []
    sys.meta_path[:] = finders


def test_two_functions_may_wait(package, calls, note):
    when_imported(NAME, note)
    when_imported(NAME, note)
    module = importlib.import_module(NAME)
    assert calls == [True, True]
    assert type(module.__spec__.loader) is type(module.__loader__)
