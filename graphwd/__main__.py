"""The command `graphwd`, and `python -m graphwd`: quiet upon Ctrl-C from its first moment on."""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point of the command."""
    try:
        from graphwd.cli.commands import cli

        cli(prog_name="graphwd")
    except KeyboardInterrupt:  # while it was loaded
        sys.stderr.write("graphwd: interrupted.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
