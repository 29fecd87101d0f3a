"""The README is true: its code runs, its commands parse, its recipes are the package's."""

import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from graphwd.cli import cli
from graphwd.policy import Policy, recipes

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
SECOND_COMMAND = 'pip install ".[test]" && pytest'


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def commands():
    """Every call of graphwd in a block for the shell, without what stands before it."""
    lines = "".join(blocks("console")).splitlines()
    return [line.rsplit("&& ", 1)[-1] for line in lines if "graphwd " in line]


def recipe_rows():
    units = {"weight_decay": "weight decay", "l2": "L2"}
    return [
        f"| `{one.name}` | {units[one.unit]} {one.coefficient:g} | {one.weights} | {one.source} |"
        for one in recipes()
    ]


def test_every_python_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "readme"}
    found = blocks("python")
    assert len(found) > 10
    for number, block in enumerate(found, 1):
        exec(compile(block, f"README.md, block {number}", "exec"), namespace)


def test_policy_files_are_valid():
    found = blocks("toml")
    assert found
    for block in found:
        assert len(Policy.from_dict(tomllib.loads(block))) > 0


@pytest.mark.parametrize("line", commands())
def test_commands_parse(line):
    program, name, *arguments = shlex.split(line)
    assert program == "graphwd"
    command = cli.commands[name]
    context = command.make_context(name, arguments)
    assert context.params


def test_commands_are_found():
    assert "graphwd rewrite app:MobileNet mobilenet-wd.keras --recipe mobilenet" in commands()


def test_recipes_are_the_packages_own():
    table = README.split("<!-- recipes -->")[1].split("<!-- /recipes -->")[0]
    assert table.strip().splitlines()[2:] == recipe_rows()


def test_ci_runs_the_second_command():
    assert f"```console\n{SECOND_COMMAND}\n```" in README
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    extraction = re.search(r"^tests=\$\((.*)\)$", script, re.MULTILINE)[1]
    found = subprocess.run(
        ["bash", "-c", extraction], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == SECOND_COMMAND
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_links_within_the_page_lead_somewhere():
    headings = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings}
    links = re.findall(r"\]\(#([^)]*)\)", README)
    assert links
    assert set(links) <= anchors


def test_floors_name_every_file():
    files = {path.name for path in (ROOT / "graphwd").glob("*.py")} - {"__init__.py"}
    assert files <= set(re.findall(r"`(\w+\.py)`", README))
