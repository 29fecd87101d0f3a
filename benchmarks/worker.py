"""A process of a benchmark: calls one function and prints what it returns as JSON."""

import contextlib
import importlib
import json
import sys


def main() -> None:
    """Runs `python -m benchmarks.worker MODULE:FUNCTION ARGUMENTS`."""
    target, arguments = sys.argv[1:]
    module, name = target.split(":")
    with contextlib.redirect_stdout(sys.stderr):  # the result alone goes to the standard output
        function = getattr(importlib.import_module(f"benchmarks.{module}"), name)
        result = function(*json.loads(arguments))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
