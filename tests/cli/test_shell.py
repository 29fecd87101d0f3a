"""The command line as people type it, and as other programs start it."""

import builtins
import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

import graphwd
from graphwd.cli import sources
from graphwd.cli.commands import cli
from graphwd.policy.policies import Policy, Rule
from graphwd.policy.regularizers import l2
from tests.support.saved_models import dense, model_config, regularized, write_h5, write_keras

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
PLAN = ["plan", "a.keras", "--recipe", "vgg"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write_keras(tmp_path / "a.keras")
    write_h5(tmp_path / "b.h5")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*arguments, **options):
    """Runs graphwd in a process of its own."""
    environment = {**ENVIRONMENT, **options.pop("env", {})}
    options = {"capture_output": True, "timeout": 300, **options}
    return subprocess.run([sys.executable, "-m", "graphwd", *arguments], env=environment, **options)


def invoke(*arguments, code=0):
    result = CliRunner().invoke(cli, list(map(str, arguments)), prog_name="graphwd")
    assert result.exit_code == code, result.output
    assert "unexpected" not in result.stderr
    return result


def test_it_is_a_module_too(folder):
    result = command("--help")
    assert result.returncode == 0
    assert result.stdout.startswith(b"Usage: graphwd ")


# What to write where


def test_several_files_go_to_a_folder(folder):
    result = invoke("rewrite", "a.keras", "b.h5", "--output-dir", "out", "--recipe", "vgg")
    assert [line.split(":")[0] for line in result.stdout.splitlines() if line[0] != " "] == [
        str(Path("out", name)) for name in ("a.keras", "b.h5")
    ]
    assert len(graphwd.plan("out/b.h5", Policy.recipe("vgg"))) == 0
    invoke("rewrite", "a.keras", "--output-dir", "out", "--recipe", "vgg", code=2)
    options = ("--output-dir", "out", "--recipe", "vgg", "--json", "--force")
    told = json.loads(invoke("rewrite", "a.keras", "b.h5", *options).stdout)
    assert [one["target"] for one in told["files"]] == ["out/a.keras", "out/b.h5"]


def test_the_target_may_be_an_option(folder):
    invoke("rewrite", "a.keras", "-o", "c.keras", "--recipe", "vgg")
    assert (folder / "c.keras").exists()


def test_a_dry_run_is_the_plan(folder):
    for arguments in (["a.keras"], ["a.keras", "c.keras"]):
        dry = invoke("rewrite", *arguments, "--dry-run", "--recipe", "vgg")
        assert dry.stdout == invoke(*PLAN).stdout
    several = ("a.keras", "b.h5", "--output-dir", "out", "--dry-run", "--recipe", "vgg", "--json")
    assert len(json.loads(invoke("rewrite", *several).stdout)["plans"]) == 2
    assert sorted(os.listdir(folder)) == ["a.keras", "b.h5"]


@pytest.mark.parametrize("live", [[], ["--live"]])
def test_strict_asks_for_an_effect(tmp_path, monkeypatch, live):
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="one")])
    model.save("a.keras")
    Policy([Rule(l2(1), roles="kernel"), Rule(None, layers="Nope")]).save("unmatched.toml")
    Policy([Rule(None)]).save("idle.toml")
    for policy, words in [("unmatched", "Rule 2 matches nothing"), ("idle", "edits nothing")]:
        options = ["--policy", f"{policy}.toml", "--strict", *live]
        result = invoke("rewrite", "a.keras", "b.keras", *options, code=1)
        assert words in result.stderr
        assert "nothing was written" in result.stderr
        assert words in invoke("plan", "a.keras", *options, code=1).stderr
        assert not Path("b.keras").exists()
        invoke("rewrite", "a.keras", "c.keras", *options[:2], *live, "--force")
    invoke("rewrite", "a.keras", "b.keras", "--recipe", "vgg", "--strict", *live)


def test_the_shell_says_force_and_python_overwrite(folder):
    for arguments in (
        ["rewrite", "a.keras", "a.keras", "--recipe", "vgg"],
        ["rewrite", "a.keras", "a.keras", "--recipe", "vgg", "--live"],
        ["report", "a.keras", "-o", "a.keras"],
    ):
        message = invoke(*arguments, code=2).stderr
        assert "--force" in message
        assert "overwrite" not in message
    with pytest.raises(graphwd.ArchiveError, match=r"overwrite=True\.$"):
        graphwd.rewrite_file("a.keras", "a.keras", Policy.recipe("vgg"))


def test_one_rewrite_is_one_survey_and_one_plan(folder, monkeypatch):
    from graphwd import api
    from graphwd.live import survey
    from graphwd.plans import plan
    from graphwd.saved import archive

    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save("c.keras")
    counts = {"survey": 0, "plan": 0}

    def counted(what, function):
        def count(*arguments, **options):
            counts[what] += 1
            return function(*arguments, **options)

        return count

    monkeypatch.setattr(survey, "survey", counted("survey", survey.survey))
    for module in (api, archive):
        monkeypatch.setattr(module, "make_plan", counted("plan", plan.make_plan))
    invoke("rewrite", "c.keras", "d.keras", "--recipe", "vgg", "--live")
    assert counts == {"survey": 1, "plan": 1}
    invoke("rewrite", "c.keras", "e.keras", "--recipe", "vgg", "--portable", "--strict")
    assert counts == {"survey": 1, "plan": 2}


def test_a_misspelt_architecture_is_answered_before_keras_is_loaded(folder):
    code = """
        import sys
        from graphwd.cli.commands import main
        try:
            main()
        finally:
            assert not {"keras", "tensorflow"} & set(sys.modules)
    """
    lines = "\n".join(line[8:] for line in code.splitlines())
    arguments = ["rewrite", "app:MobilNet", "o.keras", "--recipe", "vgg"]
    result = subprocess.run(
        [sys.executable, "-c", lines, *arguments], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert result.stderr == (
        "graphwd: keras.applications has no 'MobilNet'; did you mean 'MobileNet'?\n"
    )
    found = {name for name, value in vars(keras.applications).items() if name[0].isupper()}
    assert set(sources.architectures()) == found


# Started by other programs


@pytest.mark.parametrize("level", [None, "0", "3"])
def test_tensorflow_says_nothing_whatever_is_set(folder, level):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save("c.keras")
    environment = {} if level is None else {"TF_CPP_MIN_LOG_LEVEL": level}
    result = command("inspect", "c.keras", "--live", env=environment)
    assert result.returncode == 0
    assert result.stderr == b""


def test_a_backend_that_is_none_is_one_line(folder):
    result = command("inspect", "a.keras", "--live", env={"KERAS_BACKEND": "nope"})
    assert result.returncode == 2
    assert result.stderr.startswith(b"graphwd: Keras can't be loaded (")
    assert result.stderr.count(b"\n") == 1
    assert b"unexpected" not in result.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-", ">/dev/full"])
def test_closed_or_full_streams(folder, closed):
    line = f'"{sys.executable}" -m graphwd rewrite a.keras c.keras --recipe vgg --force {closed}'
    result = subprocess.run(["bash", "-c", line], env=ENVIRONMENT, capture_output=True, text=True)
    full = closed == ">/dev/full"
    assert result.returncode == (2 if full else 0), result.stderr
    assert result.stderr == ("graphwd: No space left on device.\n" if full else "")
    assert graphwd.verify("a.keras", "c.keras", Policy.recipe("vgg")).ok


def test_ctrl_c_is_heard_as_soon_as_python_runs():
    """Until its first module is loaded nothing of graphwd can answer: that must not take long."""
    slow = ["typing", "dataclasses", "contextlib", "click", "inspect"]
    code = f"import sys, graphwd.__main__; print([n for n in {slow!r} if n in sys.modules])"
    # Without `site`, which may import whatever its path files say.
    result = subprocess.run(
        [sys.executable, "-S", "-c", code], env=ENVIRONMENT, capture_output=True
    )
    assert result.stdout == b"[]\n", result.stderr


def test_ctrl_c_is_one_line_while_the_command_is_loaded(folder, monkeypatch, capsys):
    from graphwd import __main__

    monkeypatch.setitem(sys.modules, "graphwd.cli.commands", None)

    def interrupted(name, *arguments, **options):
        if name == "graphwd.cli.commands":
            raise KeyboardInterrupt
        return load(name, *arguments, **options)

    load = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", interrupted)
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "graphwd: interrupted.\n"


def test_json_has_no_number_that_json_lacks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_regularizer="l2")])
    for value in (math.nan, math.inf):
        model.set_weights([np.full((2, 1), value), np.zeros(1)])
        model.save("a.keras")
        for arguments in (["inspect", "a.keras"], PLAN, ["inspect", "a.keras", "--live"]):
            text = invoke(*arguments, "--json").stdout

            def refuse(word):
                raise AssertionError(word)

            assert json.loads(text, parse_constant=refuse)["slots"][0]["penalty"] is None


# Hostile input is never unexpected


def test_texts_that_are_no_unicode(folder):
    config = json.dumps(model_config()).replace('"one"', '"\\ud800one"')
    write_keras("s.keras", text=config)
    for arguments in (
        ["inspect", "s.keras"],
        ["plan", "s.keras", "--recipe", "vgg", "--json"],
        ["report", "s.keras", "-o", "s.html"],
        ["rewrite", "s.keras", "t.keras", "--recipe", "vgg"],
        ["verify", "s.keras", "t.keras", "--recipe", "vgg"],
    ):
        assert command(*arguments).returncode == 0
    Path("p.json").write_text('{"rules": [{"layers": "\\ud800*", "l2": 1}]}')
    for arguments in (["plan", "a.keras"], ["report", "a.keras", "-o", "p.html"]):
        result = command(*arguments, "--policy", "p.json")
        assert result.returncode == 0
        assert b"unexpected" not in result.stderr
    odd = b"\xff.keras"
    os.rename("a.keras", odd)
    for arguments in (
        [b"inspect", odd],
        [b"report", odd, b"-o", b"\xff.html"],
        [b"rewrite", odd, b"\xfe.keras", b"--recipe", b"vgg"],
        [b"plan", odd, b"--recipe", b"vgg", b"--json"],
    ):
        result = command(*arguments)
        assert result.returncode == 0, result.stderr


def test_an_empty_archive_and_numbers_beyond_floats(folder):
    zipfile.ZipFile("empty.keras", "w").close()
    Path("p.json").write_text('{"rules": [{"l2": 1' + "0" * 400 + "}]}")
    penalty = {"class_name": "L2", "config": {"l2": 10**400}, "module": "keras.regularizers"}
    custom = dense("one", module="mine", class_name="Mine", kernel_regularizer=penalty)
    write_keras("own.keras", model_config(custom))
    write_keras("big.keras", model_config(regularized("one", units=10**400)))
    for name in ("empty.keras", "own.keras"):
        assert "Traceback" not in invoke("inspect", name, code=2).stderr
    invoke("plan", "a.keras", "--policy", "p.json", code=2)
    invoke("inspect", "big.keras")
    for value in ("true", "1", "[]", "{}", '"nope"'):
        text = json.dumps(model_config()).replace(
            '"kernel_regularizer": null', f'"kernel_regularizer": {value}', 1
        )
        write_keras("wrong.keras", text=text)
        for arguments in (
            ["inspect", "wrong.keras"],
            ["rewrite", "wrong.keras", "w.keras", "--recipe", "vgg"],
            ["verify", "a.keras", "wrong.keras"],
        ):
            assert "kernel_regularizer of" in invoke(*arguments, code=2).stderr
