"""The pages are true: their code and commands run, their links and tests are there."""

import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

import graphwd
from graphwd.cli.commands import cli
from graphwd.policy.policies import Policy, recipes

ROOT = Path(__file__).parent.parent
PAGES = {
    name: (ROOT / name).read_text("utf-8")
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")
}
README = PAGES["README.md"]
CONTRIBUTING = PAGES["CONTRIBUTING.md"]
EVIDENCE = PAGES["benchmarks/README.md"]
SECOND_COMMAND = 'pip install ".[test]" tensorflow-cpu && pytest -n auto --dist loadfile'


def blocks(language, text=README):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def section(title):
    return re.search(rf"^## {title}\n(.*?)(?=^## )", README, re.DOTALL | re.MULTILINE)[1]


def anchors(text):
    """What links to a page's headings say, as GitHub makes it."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def commands():
    """Every call of graphwd in a block for the shell, without what stands before it."""
    lines = "".join(blocks("console")).splitlines()
    return [line.rsplit("&& ", 1)[-1] for line in lines if "graphwd " in line]


def recipe_rows():
    """One row for the recipes that penalise the same weights."""
    units = {"weight_decay": "", "l2": "L2 "}
    rows = {}
    for one in recipes():
        strength = f"{units[one.unit]}{one.coefficient:g}"
        rows.setdefault(one.weights, []).append(f"`{one.name}` {strength}")
    return [f"| {', '.join(names)} | {weights} |" for weights, names in rows.items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where code and commands run: with the page's policy, and what earlier ones wrote."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "decay.toml").write_text(blocks("toml")[0])
    return folder


def test_every_python_block_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    namespace = {"__name__": "readme"}
    found = blocks("python")
    assert len(found) >= 10
    for number, block in enumerate(found, 1):
        exec(compile(block, f"README.md, block {number}", "exec"), namespace)


def test_what_accompanies_training_takes_six_lines_at_most():
    found = blocks("python", section("Training"))
    assert len(found) == 5
    assert max(len(block.splitlines()) for block in found) <= 6


def test_no_page_is_longer_than_one_reads():
    lengths = {name: len(text.splitlines()) for name, text in PAGES.items()}
    assert lengths["README.md"] <= 300
    assert lengths["CONTRIBUTING.md"] <= 150


def test_policy_files_are_valid():
    found = blocks("toml")
    assert found
    for block in found:
        assert len(Policy.from_dict(tomllib.loads(block))) > 0


@pytest.mark.parametrize("line", commands())
def test_every_command_runs(line, folder, monkeypatch):
    """In the order of the page, since later ones read what earlier ones write."""
    monkeypatch.chdir(folder)
    program, *arguments = shlex.split(line)
    assert program == "graphwd"
    before = set(folder.iterdir())
    result = CliRunner().invoke(cli, arguments, prog_name="graphwd")
    assert result.exit_code == 0, result.output
    written = [argument for argument in arguments if argument.endswith((".keras", ".h5", ".html"))]
    if "--output-dir" in arguments:
        written = [arguments[arguments.index("--output-dir") + 1]]
    if arguments[0] in ("rewrite", "report"):
        assert {path.name for path in set(folder.iterdir()) - before} == {written[-1]}
    else:
        assert set(folder.iterdir()) == before
        assert result.stdout


def test_other_lines_for_the_shell_are_known():
    """They install and test, which the continuous integration does."""
    found = [*blocks("console"), *blocks("console", CONTRIBUTING)]
    lines = [line for line in "".join(found).splitlines() if not re.search(r"\bgraphwd \w", line)]
    assert lines == [
        SECOND_COMMAND,
        'pip install -e ".[test]" tensorflow-cpu',
        "ruff check && ruff format --check && lint-imports && mypy --strict -p graphwd",
        "pytest tests/policy/test_rules.py",
    ]
    assert (ROOT / "tests" / "policy" / "test_rules.py").exists()


def test_every_block_is_of_a_language_that_is_run():
    fences = re.findall(r"^```(.*)$", "".join(PAGES.values()), re.MULTILINE)
    assert set(fences[::2]) == {"console", "python", "toml"}
    assert set(fences[1::2]) == {""}


def test_pictures_are_there_and_told_in_words():
    for name in ("README.md", "benchmarks/README.md"):
        pictures = re.findall(r"!\[(.*?)\]\((.*?)\)", PAGES[name])
        assert pictures
        for words, path in pictures:
            assert len(words) > 20
            assert (ROOT / name).parent.joinpath(path).stat().st_size > 10_000


def test_no_two_blank_lines():
    prose = re.sub(r"^```.*?^```$", "a block", README, flags=re.MULTILINE | re.DOTALL)
    assert "a block" in prose
    assert "\n\n\n" not in prose


def test_commands_are_found():
    assert "graphwd rewrite app:MobileNet mobilenet-wd.keras --recipe mobilenet" in commands()


def test_what_the_comparison_says_of_keras_is_so(tmp_path):
    l2 = keras.regularizers.L2(0.1)

    def model():
        inputs = keras.Input((2,))
        made = keras.Model(inputs, keras.layers.Dropout(0.5)(keras.layers.Dense(2)(inputs)))
        made.compile("adam", "mse")
        return made

    one = model()
    one.layers[1].kernel_regularizer = l2
    assert len(one.losses) == 0
    one.save(tmp_path / "one.keras")
    assert len(keras.saving.load_model(tmp_path / "one.keras").losses) == 1

    def regularized(layer):
        config = layer.get_config()
        if isinstance(layer, keras.layers.Dense):
            config["kernel_regularizer"] = l2
        return type(layer).from_config(config)

    source = model()
    source.fit(np.ones((4, 2)), np.ones((4, 2)), verbose=0)
    source.layers[2].seed_generator.state.assign([1, 2])
    clone = keras.models.clone_model(source, clone_function=regularized)
    clone.set_weights(source.get_weights())
    assert len(clone.losses) == 1
    assert int(clone.optimizer.iterations) == 0
    assert list(clone.layers[2].seed_generator.state.numpy()) != [1, 2]
    copy = graphwd.rewrite(source, graphwd.Rule(l2, roles="kernel"))
    assert len(copy.losses) == 1
    assert int(copy.optimizer.iterations) == 1
    assert list(copy.layers[2].seed_generator.state.numpy()) == [1, 2]


def test_recipes_are_the_packages_own():
    table = README.split("<!-- recipes -->")[1].split("<!-- /recipes -->")[0]
    assert table.strip().splitlines()[2:] == recipe_rows()
    decoupled = [one.name for one in recipes() if Policy.recipe(one.name).mechanism == "decoupled"]
    assert decoupled == [one.name for one in recipes()][-len(decoupled) :]
    assert f"from `{decoupled[0]}` on" in " ".join(section("Recipes").split())


def test_ci_runs_the_second_command():
    assert README.count(SECOND_COMMAND) == 1
    assert f"```console\n{SECOND_COMMAND}\n```" in README
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    extraction = re.search(r"^tests=\$\((.*)\)$", script, re.MULTILINE)[1]
    found = subprocess.run(
        ["bash", "-c", extraction], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == SECOND_COMMAND
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!\w+:)([^)#]*)(?:#([^)]*))?\)", PAGES[page])
    assert links or page == "CHANGELOG.md"
    for path, anchor in links:
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), path
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), anchor


def test_the_package_has_the_readme_without_links_that_lead_nowhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    hook = project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    text = README
    for change in hook["substitutions"]:
        text = re.sub(change["pattern"], change["replacement"], text)
    assert set(re.findall(r"\]\(([^)]*)\)", text)) <= {f"#{anchor}" for anchor in anchors(README)}
    assert "*Picture in the repository, `benchmarks/pictures/mobilenet.png`: " in text
    assert "(`benchmarks/README.md` in the repository)" in text


def test_the_source_distribution_has_every_page():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert {name.split("/")[0] for name in PAGES} <= set(included)


def test_the_rooms_that_are_told_are_those_that_there_are():
    """With what lies in them: each file that the page names."""
    package = ROOT / "graphwd"
    rooms = {path.parent.relative_to(package).as_posix() for path in package.rglob("__init__.py")}
    told = re.findall(r"^\| `([\w/]+)/` \|", CONTRIBUTING, re.MULTILINE)
    assert set(told) == rooms - {"."}
    for named in re.findall(r"`((?:[\w.]+/)+[\w.]+)`", CONTRIBUTING):
        assert (package / named).exists() or (ROOT / named).exists(), named


def test_imports_go_the_way_that_is_told():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    told = re.search(r"^> (.*)$", CONTRIBUTING, re.MULTILINE)[1].replace("`", "")
    assert told.split(" → ") == layers


def supported():
    """The tests that the table of what is supported names, each as a file and a function."""
    table = EVIDENCE.split("<!-- supported -->")[1].split("<!-- /supported -->")[0]
    rows = table.strip().splitlines()[2:]
    return [(row, re.findall(r"`(test_\w+\.py)::(test_\w+)`", row)) for row in rows]


def test_what_is_supported_has_tests():
    rows = supported()
    assert len(rows) > 20
    for row, tests in rows:
        assert tests, row
        for file, name in tests:
            (found,) = (ROOT / "tests").rglob(file)
            text = found.read_text("utf-8")
            assert re.search(rf"^def {name}\(", text, re.MULTILINE), f"{file}::{name}"


def test_the_numbers_of_keras_hub_are_those_of_the_sweep():
    hub = pytest.importorskip("tests.support.hub_models", reason="keras-hub is not installed")
    backbones, variants, tasks = (len(x) for x in (hub.BACKBONES, hub.VARIANTS, hub.TASKS))
    assert f"{backbones} of {backbones}, and {variants} of {variants} variants" in EVIDENCE
    assert f"{tasks} of {tasks} |" in EVIDENCE
