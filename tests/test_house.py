"""The tests lie as the package does: each module has its file, and no file leans on another."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "graphwd"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.stem != "__init__")
FILES = sorted(TESTS.rglob("test_*.py"))
LONGEST = 400

FOLDERS = {"_keras": "keras_names"}
"""Rooms whose tests lie in a folder of another name."""

WITHOUT = {
    "__main__.py": "tests/cli/test_program.py runs it, as a command and as a module",
    "api.py": "each of its steps is a module's; tests/live/test_rewrite.py has rewrite as a whole",
    "errors.py": "whoever raises one tests its sentence",
}
"""Modules without a test file of their name, and why."""

LONGER = {
    "live/test_strangers.py": "one list of faults and of changes for every model of strangers",
}
"""Test files of more lines than a file has, and why."""


def own_file(module):
    """Where the tests of a module are."""
    *rooms, name = module.relative_to(PACKAGE).with_suffix("").parts
    return TESTS.joinpath(*(FOLDERS.get(room, room) for room in rooms), f"test_{name}.py")


def name_of(path, root):
    return path.relative_to(root).as_posix()


@pytest.mark.parametrize("module", MODULES, ids=lambda module: name_of(module, PACKAGE))
def test_each_module_has_a_test_file_of_its_name(module):
    path, name = own_file(module), name_of(module, PACKAGE)
    assert path.exists() != (name in WITHOUT), f"{name}: {WITHOUT.get(name, 'it has no tests')}"
    if path.exists():
        tree = ast.parse(path.read_text("utf-8"))
        assert any(getattr(node, "name", "").startswith("test_") for node in tree.body), path


def test_exceptions_are_of_files_that_there_are():
    assert set(WITHOUT) <= {name_of(module, PACKAGE) for module in MODULES}
    assert set(LONGER) <= {name_of(path, TESTS) for path in FILES}
    rooms = {path.name for path in PACKAGE.rglob("*") if path.is_dir()}
    assert set(FOLDERS) <= rooms
    assert not set(FOLDERS.values()) & rooms


@pytest.mark.parametrize("path", FILES, ids=lambda path: name_of(path, TESTS))
def test_a_test_file_is_short_and_imports_no_other(path):
    text, name = path.read_text("utf-8"), name_of(path, TESTS)
    assert (len(text.splitlines()) > LONGEST) == (name in LONGER), LONGER.get(name, "too long")
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        parts = {part for each in names if each.startswith("tests") for part in each.split(".")}
        assert not any(part.startswith("test_") for part in parts), f"{name}:{node.lineno}"
