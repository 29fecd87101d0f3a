"""The package as a whole: what is public is documented, light to import, and built in rooms."""

import ast
import importlib
import importlib.metadata
import inspect
import re
import tomllib
from pathlib import Path

import pytest

import graphwd
from tests.support.processes import run

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "graphwd"
FILES = sorted(PACKAGE.rglob("*.py"))
PRIVATE = PACKAGE / "live" / "_keras"  # all that has private names of Keras
HEAVY = ("keras", "tensorflow", "jax", "torch", "h5py", "numpy")
PUBLIC = [name for name in graphwd.__all__ if not name.startswith("_")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_private_name_of_keras(path):
    if path.is_relative_to(PRIVATE):
        return
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
            assert not any(name.startswith("keras.src") for name in names), path
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            if node.attr.startswith("__"):
                continue
            # A file's own objects: self._x, cls._x, and what the file itself defines.
            owner = ast.unparse(node.value)
            defined = re.search(rf"\b(self|cls)\.{node.attr}\b|^def {node.attr}\b", text, re.M)
            slots = re.search(rf"^\s+{node.attr}\s*[:=(]", text, re.M)
            assert owner in ("self", "cls", "super()") or defined or slots, (
                f"{path.name}:{node.lineno}: {owner}.{node.attr} is private to something else"
            )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_exception_to_the_type_checker_says_why(path):
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if "type: ignore" in line:
            assert re.search(r"type: ignore\[[\w, -]+\] +# \w+", line), f"{path.name}:{number}"
        if "# noqa" in line:
            assert re.search(r"# noqa: [A-Z]+\d+(, [A-Z]+\d+)* (#|-) \w+", line), (
                f"{path.name}:{number}"
            )


def is_documented_elsewhere(cls, attribute):
    """Whether a method overrides one of Keras's or Python's, whose docstring has the arguments."""
    others = (base for base in cls.__mro__ if not base.__module__.startswith("graphwd"))
    return any(attribute in vars(base) for base in others)


def public_functions():
    for name in PUBLIC:
        value = getattr(graphwd, name)
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value) and value.__module__.startswith("graphwd"):
            for attribute, member in vars(value).items():
                member = getattr(member, "__func__", member)
                if not inspect.isfunction(member) or attribute.startswith("_"):
                    continue
                if not is_documented_elsewhere(value, attribute):
                    yield f"{name}.{attribute}", member


FUNCTIONS = dict(public_functions())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_is_documented_as_keras_does(name):
    function = FUNCTIONS[name]
    text = inspect.getdoc(function)
    assert text, name
    assert text.splitlines()[0].rstrip().endswith((".", ",")) or len(text.splitlines()) > 1
    parameters = [
        parameter
        for parameter in inspect.signature(function).parameters
        if parameter not in ("self", "cls")
    ]
    if parameters:
        assert "Args:" in text, name
        described = text[text.index("Args:") :]
        for parameter in parameters:
            assert re.search(rf"^    \*{{0,2}}{parameter}: ", described, re.M), (name, parameter)
    annotation = inspect.signature(function).return_annotation
    if annotation not in (None, "None", inspect.Signature.empty):
        assert "Returns:" in text, name


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(graphwd, name)
    assert inspect.getdoc(value)
    assert name in dir(graphwd)
    assert value.__module__.startswith("graphwd")


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="nothing"):
        graphwd.nothing  # noqa: B018


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_first_line_says_what_lives_in_a_file(path):
    first = path.read_text().splitlines()[0]
    assert first.startswith('"""')
    assert first.rstrip('"').endswith((".", "?"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_public_definition_has_a_docstring(path):
    tree = ast.parse(path.read_text())
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}: {node.name}"


def loaded_by(program: str) -> set[str]:
    """The heavy modules that a fresh interpreter has loaded after a program."""
    program += f"\nimport sys; print('loaded', *[n for n in {HEAVY!r} if n in sys.modules])"
    return set(run(program).splitlines()[-1].split()[1:])


def test_importing_loads_neither_keras_nor_a_backend():
    assert not loaded_by("import graphwd")


def test_policies_and_plans_load_neither_keras_nor_a_backend():
    program = (
        "import graphwd\n"
        "graphwd.Policy.recipe('resnet'), graphwd.Rule(None), graphwd.PolicyError, graphwd.Plan\n"
        "import graphwd.graph.equivalence, graphwd.plans.plan, graphwd.plans.page"
    )
    assert not loaded_by(program) - {"numpy"}


def test_the_carrier_is_known_to_keras_whichever_comes_first():
    known = "assert keras.saving.get_registered_object('graphwd>Carrier')"
    loaded_by(f"import graphwd\nimport keras\n{known}")
    import keras

    assert keras.saving.get_registered_object("graphwd>Carrier")


def test_the_version_is_that_of_the_project():
    try:
        importlib.metadata.version("graphwd")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("a checkout that is not installed has no version")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert graphwd.__version__ == project["version"]


def test_every_module_imports_on_its_own():
    for path in FILES:
        if path.stem != "__main__":
            parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
            importlib.import_module(".".join(part for part in parts if part != "__init__"))


@pytest.mark.parametrize(
    "room", sorted({path.parent for path in FILES}), ids=lambda room: str(room.relative_to(ROOT))
)
def test_a_room_has_at_most_eight_files_of_400_lines(room):
    files = [path for path in room.glob("*.py") if path.stem != "__init__"]
    assert len(files) <= 8
    assert not [path.name for path in files if len(path.read_text().splitlines()) > 400]
