"""Python in another process."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def python(*arguments, **options):
    """Runs Python in another process, with whatever is given; returns what became of it."""
    how = {"capture_output": True, "text": True, "env": ENVIRONMENT, "timeout": 300, **options}
    given = [each if isinstance(each, bytes) else str(each) for each in arguments]
    return subprocess.run([sys.executable, *given], **how)


def script(code, *arguments, **options):
    """Runs Python code in another process, however it ends."""
    return python("-c", textwrap.dedent(code), *arguments, **options)


def run(code, *arguments, **options):
    """Runs Python code in another process, and returns what it prints."""
    result = script(code, *arguments, **options)
    assert result.returncode == 0, result.stderr
    return result.stdout
