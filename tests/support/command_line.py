"""The command line, run in this process or in one of its own."""

import os
import subprocess
import sys
from pathlib import Path

import keras
from click.testing import CliRunner

from graphwd.cli.commands import cli

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    key: value
    for key, value in os.environ.items()
    if key not in ("TF_CPP_MIN_LOG_LEVEL", "COLUMNS")
}
ENVIRONMENT["PYTHONPATH"] = str(ROOT)
RUN = [sys.executable, "-m", "graphwd"]


def command(*arguments, env=None, **options):
    """Runs graphwd in a process of its own."""
    return subprocess.run(
        [*RUN, *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        env={**ENVIRONMENT, **(env or {})},
        timeout=300,
        **options,
    )


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
