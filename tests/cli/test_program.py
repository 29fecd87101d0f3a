"""The program around the commands: streams, signals, and errors on one line."""

import builtins
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import graphwd
from graphwd.__main__ import main
from graphwd.policy.policies import Policy
from tests.support.command_line import ENVIRONMENT, RUN, command, fails, invoke, run
from tests.support.processes import python
from tests.support.saved_models import dense, model_config, regularized, write_keras


def test_it_is_a_module_too(archives):
    result = command("--help")
    assert result.returncode == 0
    assert result.stdout.startswith("Usage: graphwd ")


def test_main_is_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["graphwd", "recipes", "vgg", "--json"])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 0
    assert json.loads(capsys.readouterr().out)


def test_errors_can_not_steer_a_terminal():
    fails(invoke("inspect", "no\x1b[2Jfile\n.keras"), r"no\x1b[2Jfile")


def test_debug_shows_where(folder):
    for arguments in (["--debug", "inspect", "absent"], ["inspect", "absent", "--debug"]):
        result = invoke(*arguments)
        assert result.exit_code == 2
        assert "Traceback" in result.stderr
        assert "ArchiveError" in result.stderr


def test_what_nobody_foresaw_is_one_line_too(folder, monkeypatch):
    from graphwd.saved import rewriting

    def fail(path):
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(rewriting, "inspect_file", fail)
    fails(invoke("inspect", "model.keras"), "ZeroDivisionError: two lines", "--debug", "report")


# Started by other programs


def test_a_closed_pipe_is_no_error(folder):
    line = f"{' '.join([*RUN])} plan model.keras --recipe vgg --json | head -1"
    result = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, env=ENVIRONMENT, check=True
    )
    assert (result.stdout, result.stderr) == ("{\n", "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-", ">/dev/full"])
def test_closed_or_full_streams(archives, closed):
    line = f'"{sys.executable}" -m graphwd rewrite a.keras c.keras --recipe vgg --force {closed}'
    result = subprocess.run(["bash", "-c", line], env=ENVIRONMENT, capture_output=True, text=True)
    full = closed == ">/dev/full"
    assert result.returncode == (2 if full else 0), result.stderr
    assert result.stderr == ("graphwd: No space left on device.\n" if full else "")
    assert graphwd.verify("a.keras", "c.keras", Policy.recipe("vgg")).ok


def test_ctrl_c_is_one_line(folder, monkeypatch):
    from graphwd.saved import rewriting

    def fail(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(rewriting, "inspect_file", fail)
    result = invoke("inspect", "model.keras")
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr.strip() == "graphwd: interrupted."  # after the ^C that a terminal shows


def test_ctrl_c_is_heard_as_soon_as_python_runs():
    """Until its first module is loaded nothing of graphwd can answer: that must not take long."""
    slow = ["typing", "dataclasses", "contextlib", "click", "inspect"]
    code = f"import sys, graphwd.__main__; print([n for n in {slow!r} if n in sys.modules])"
    # Without `site`, which may import whatever its path files say.
    result = python("-S", "-c", code, env=ENVIRONMENT)
    assert result.stdout == "[]\n", result.stderr


def test_ctrl_c_is_one_line_while_the_command_is_loaded(archives, monkeypatch, capsys):
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


# Hostile input is never unexpected


def test_texts_that_are_no_unicode(archives):
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
        assert "unexpected" not in result.stderr
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


def test_an_empty_archive_and_numbers_beyond_floats(archives):
    zipfile.ZipFile("empty.keras", "w").close()
    Path("p.json").write_text('{"rules": [{"l2": 1' + "0" * 400 + "}]}")
    penalty = {"class_name": "L2", "config": {"l2": 10**400}, "module": "keras.regularizers"}
    custom = dense("one", module="mine", class_name="Mine", kernel_regularizer=penalty)
    write_keras("own.keras", model_config(custom))
    write_keras("big.keras", model_config(regularized("one", units=10**400)))
    for name in ("empty.keras", "own.keras"):
        assert "Traceback" not in run("inspect", name, code=2).stderr
    run("plan", "a.keras", "--policy", "p.json", code=2)
    run("inspect", "big.keras")
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
            assert "kernel_regularizer of" in run(*arguments, code=2).stderr
