"""What each command writes, prints and returns, and what it must not load."""

import importlib.metadata
import io
import json
import math
import os
import re
import sys

import keras
import numpy as np
import pytest

import graphwd
from graphwd.cli.commands import cli
from graphwd.policy.policies import Policy, recipes
from tests.support import processes
from tests.support.command_line import ENVIRONMENT, fails, invoke, penalties, run

KERNELS = ["conv_1/kernel", "conv_2/kernel", "head/kernel"]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("way", [[], ["--live"]])
def test_rewrite_writes_what_keras_loads(folder, suffix, way):
    result = invoke("rewrite", f"model{suffix}", f"out{suffix}", "--policy", "decay.toml", *way)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert result.stdout.startswith(f"out{suffix}: ")
    assert "  edited     3 of 13 slots: 3 kernel\n" in result.stdout
    assert "equal but for the planned edits" in result.stdout
    assert penalties(f"out{suffix}") == KERNELS
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []


def test_both_ways_write_the_same_model(folder):
    assert invoke("rewrite", "model.keras", "a.keras", "--recipe", "vgg").exit_code == 0
    assert invoke("rewrite", "model.keras", "b.keras", "--recipe", "vgg", "--live").exit_code == 0
    report = graphwd.verify("a.keras", "b.keras", graphwd.Policy([]))
    assert report.ok, str(report)
    one, other = map(keras.saving.load_model, ("a.keras", "b.keras"))
    assert one.optimizer.iterations == other.optimizer.iterations
    x = np.ones((2, 8, 8, 3), "float32")
    np.testing.assert_array_equal(one.predict(x, verbose=0), other.predict(x, verbose=0))


def test_json_of_a_rewrite(folder):
    result = invoke("rewrite", "model.keras", "out.keras", "--recipe", "vgg", "--json")
    data = json.loads(result.stdout)
    assert data["target"] == "out.keras"
    assert data["bytes"] == os.path.getsize("out.keras")
    assert len(data["edits"]) == 3


def test_plan_and_inspect_print_tables(folder):
    result = invoke("plan", "model.keras", "--policy", "decay.toml")
    assert result.exit_code == 0
    assert result.stdout.startswith("3 of the ")
    assert "conv_*/kernel" in result.stdout
    assert result.stdout == f"{graphwd.plan('model.keras', Policy.load('decay.toml'))}\n"
    result = invoke("inspect", "model.keras")
    assert result.exit_code == 0
    assert "conv_*/kernel" in result.stdout


@pytest.mark.parametrize("way", [[], ["--live"]])
def test_tables_have_numbers(folder, way):
    result = invoke("inspect", "model.keras", *way)
    assert result.exit_code == 0, result.output
    assert "parameters" in result.stdout
    result = invoke("plan", "model.keras", "--recipe", "vgg", *way)
    assert "Penalty by rule" in result.stdout
    assert "Penalty by role" in result.stdout
    data = json.loads(invoke("plan", "model.keras", "--recipe", "vgg", "--json", *way).stdout)
    kernel = data["summary"]["roles"][0]
    assert (kernel["label"], kernel["parameters"]) == ("kernel", 108 + 144 + 8)
    model = keras.saving.load_model("model.keras")
    kernels = [model.get_layer(name).kernel for name in ("conv_1", "conv_2", "head")]
    squares = [np.sum(np.square(kernel)) for kernel in kernels]
    assert kernel["planned_penalty"] == pytest.approx(2.5e-4 * sum(squares), rel=1e-5)
    largest = kernel["largest"]
    assert len(largest) == 3
    assert largest[0]["penalty"] == pytest.approx(2.5e-4 * max(squares), rel=1e-5)


def test_json_of_plan_and_inspect_is_that_of_the_package(folder):
    policy = Policy.load("decay.toml")
    planned = invoke("plan", "model.keras", "--policy", "decay.toml", "--json")
    assert json.loads(planned.stdout) == graphwd.plan("model.keras", policy).to_dict()
    inspected = json.loads(invoke("inspect", "model.keras", "--json").stdout)
    assert inspected["policy"] is None
    assert [one["path"] for one in inspected["slots"]][:2] == ["conv_1/kernel", "conv_1/bias"]


def test_json_has_no_number_that_json_lacks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = ["plan", "a.keras", "--recipe", "vgg"]
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_regularizer="l2")])
    for value in (math.nan, math.inf):
        model.set_weights([np.full((2, 1), value), np.zeros(1)])
        model.save("a.keras")
        for arguments in (["inspect", "a.keras"], plan, ["inspect", "a.keras", "--live"]):
            text = run(*arguments, "--json").stdout

            def refuse(word):
                raise AssertionError(word)

            assert json.loads(text, parse_constant=refuse)["slots"][0]["penalty"] is None


@pytest.mark.parametrize("way", [[], ["--live"]])
def test_report_is_a_page(folder, way):
    for options in (["--recipe", "vgg"], []):
        arguments = ["report", "model.keras", "-o", "out.html", *options, *way]
        result = invoke(*arguments)
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith("out.html: ")
        assert "<html" in (folder / "out.html").read_text("utf-8")
        fails(invoke(*arguments), "exists", "--force")
        assert invoke(*arguments, "--force").exit_code == 0
        (folder / "out.html").unlink()
    fails(invoke("report", "model.keras", "-o", "."), "directory")
    fails(invoke("report", "model.keras", "-o", "no/out.html"), "no/out.html")
    fails(invoke("report", "model.keras"), "--output")


def test_verify_tells_by_its_exit_code(folder):
    assert invoke("rewrite", "model.keras", "out.keras", "--recipe", "vgg").exit_code == 0
    for options in ([], ["--recipe", "vgg"], ["--live"], ["--outputs"]):
        result = invoke("verify", "model.keras", "out.keras", *options)
        assert result.exit_code == 0, result.output
        planned = "but for the planned edits" if "--recipe" in options else "apart from reg"
        assert result.stdout.startswith(f"equal {planned}")
    result = invoke("verify", "model.keras", "out.keras", "--recipe", "no-bias")
    assert result.exit_code == 1
    assert "head/kernel: the config has L2(0.00025) instead of the planned L2" in result.stdout
    assert result.stderr == ""
    result = invoke("verify", "model.keras", "out.keras", "--recipe", "no-bias", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["ok"] is False


def test_recipes_are_listed_and_told():
    result = invoke("recipes")
    assert [line.split()[0] for line in result.stdout.splitlines()[2:]] == [
        recipe.name for recipe in recipes()
    ]
    told = invoke("recipes", "mobilenet").stdout
    assert "arXiv:1704.04861" in told
    assert "roles: depthwise -> none" in told
    data = json.loads(invoke("recipes", "vgg", "--json").stdout)["recipes"]
    assert [one["coefficient"] for one in data] == [5e-4]


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "c.keras", "--recipe", "bert"],
        ["inspect", "c.keras"],
        ["rewrite", "c.keras", "d.keras", "--recipe", "bert"],
        ["recipes"],
        ["recipes", "mobilenet"],
    ],
)
def test_all_that_is_told_fits_80_columns(archives, monkeypatch, arguments):
    inputs = keras.Input((3,))
    x = keras.layers.Dense(1, name="a_layer_with_a_name_that_is_as_long_as_names_get")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, trainable=False, name="frozen")(x))
    model.compile("adamw", "mse")
    model.save("c.keras")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stdout", Terminal())
    cli(arguments, standalone_mode=False)
    text = re.sub(r"\x1b\[[\d;]*m", "", sys.stdout.getvalue())
    assert len(text.splitlines()) > 5
    assert max(map(len, text.splitlines())) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in text


# Help


def test_help_has_examples_for_every_command(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for name in ([], *([name] for name in cli.commands)):
        result = invoke(*name, "--help")
        assert result.exit_code == 0
        assert f"\n    graphwd {' '.join(name)}" in result.stdout
        assert max(map(len, result.stdout.splitlines())) <= 80
        assert invoke(*name, "-h").stdout == result.stdout


def test_no_arguments_are_wrong_usage_that_gets_help():
    result = invoke()
    assert result.exit_code == 2
    assert result.stdout.startswith("Usage: graphwd")


def test_help_loads_nothing():
    heavy = ["keras", "tensorflow", "jax", "torch", "h5py", "networkx", "rich", "numpy", "tomli_w"]
    code = f"""
        import sys
        from graphwd.__main__ import main
        try:
            main()
        except SystemExit as done:
            assert done.code in (None, 0), done.code
        loaded = [name for name in {heavy!r} if name in sys.modules]
        assert not loaded, loaded
    """
    for arguments in (["--help"], ["rewrite", "--help"]):
        processes.run(code, *arguments, env=ENVIRONMENT)


def test_files_are_planned_and_rewritten_without_keras(folder):
    code = """
import sys
for name in ("keras", "tensorflow", "jax", "torch"):
    sys.modules[name] = None
from graphwd.__main__ import main
main()
"""
    for arguments in (
        ["rewrite", "model.keras", "out.keras", "--recipe", "vgg"],
        ["plan", "model.h5", "--recipe", "vgg"],
        ["inspect", "out.keras"],
        ["verify", "model.keras", "out.keras"],
    ):
        result = processes.script(code, *arguments, env=ENVIRONMENT)
        assert (result.returncode, result.stderr) == (0, ""), result.stderr


def test_version():
    result = invoke("--version")
    assert result.exit_code == 0
    try:
        assert result.stdout == f"graphwd {graphwd.__version__}\n"
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        assert "not installed" in result.stdout
