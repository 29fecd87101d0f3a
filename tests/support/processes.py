"""Python in another process."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def run(code, *arguments, **options):
    """Runs Python code in another process, and returns what it prints."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    result = subprocess.run(
        command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300, **options
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
