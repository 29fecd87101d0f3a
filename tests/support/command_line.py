"""The command line, run in this process or in one of its own."""

import sys

import keras
from click.testing import CliRunner

from graphwd.cli.commands import cli
from tests.support import processes
from tests.support.processes import python

ENVIRONMENT = {
    key: value
    for key, value in processes.ENVIRONMENT.items()
    if key not in ("TF_CPP_MIN_LOG_LEVEL", "COLUMNS")
}
RUN = [sys.executable, "-m", "graphwd"]


def command(*arguments, env=None, **options):
    """Runs graphwd in a process of its own."""
    env = {**ENVIRONMENT, **(env or {})}
    return python("-m", "graphwd", *arguments, env=env, errors="replace", **options)


def invoke(*arguments):
    """Runs graphwd in this process."""
    return CliRunner().invoke(cli, list(map(str, arguments)), prog_name="graphwd")


def run(*arguments, code=0):
    """Runs graphwd in this process, and checks how it ends."""
    result = invoke(*arguments)
    assert result.exit_code == code, result.output
    assert "unexpected" not in result.stderr
    return result


def fails(result, *words, code=2):
    """Checks that a command failed with one line on standard error, and nothing else."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("graphwd: ")
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


def penalties(path):
    """The variables of a saved model that have a regularizer."""
    model = keras.saving.load_model(path)
    return sorted(
        variable.path for variable in model.trainable_variables if variable.regularizer is not None
    )
