"""The program around the commands: its streams and signals, errors in a line, and exit codes."""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TextIO

import click

from graphwd import writing
from graphwd.errors import EquivalenceError, GraphwdError

DONE, NOT_EQUIVALENT, WRONG = 0, 1, 2

_OPTIONS = {
    "pass overwrite=True": "pass --force",
    "leave portable=False": "leave out --portable",
}
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_INTERRUPTED = 130  # what shells expect of a program that Ctrl-C ended


def _kept(help_text: str | None) -> str | None:
    """Marks the paragraphs of a help text that click must not fill: those with indented lines."""
    if help_text is None:
        return None
    paragraphs = inspect.cleandoc(help_text).split("\n\n")
    return "\n\n".join("\b\n" + text if "\n  " in text else text for text in paragraphs)


class _Command(click.Command):
    """A command whose help keeps its examples as they are."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **{"context_settings": SETTINGS, **settings})
        self.help = _kept(self.help)


class Unfulfilled(GraphwdError):
    """What `--strict` asks for is not so."""


class Main(click.Group):
    """The group of all commands: errors are one line, exit codes are graphwd's."""

    command_class = _Command

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.help = _kept(self.help)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in their own order, not the alphabet's."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds a command, or suggests the nearest one."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            message = unknown("There is no command", args[0], self.commands, "the commands are")
            raise click.UsageError(message, ctx)
        return super().resolve_command(ctx, args)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs the command line; in a program of its own it ends with graphwd's exit codes."""
        _open_standard_streams()
        arguments = list(sys.argv[1:] if args is None else args)
        options = arguments[: arguments.index("--")] if "--" in arguments else arguments

        def run() -> Any:
            return super(Main, self).main(
                args=arguments or ["--help"],
                prog_name=prog_name,
                complete_var=complete_var,
                standalone_mode=False,
                **extra,
            )

        if not standalone_mode:
            return run()
        with _nothing_left_behind():
            code = _code_of(run, "--debug" in options)
        sys.exit(code if arguments else WRONG)


def _open_standard_streams() -> None:
    """Opens what whoever started the program has closed, lest a model be opened in its place."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 # open as long as the program


def unknown(there_is_no: str, word: str, known: Collection[str], there_are: str) -> str:
    """A sentence on a misspelt name, with the nearest right one or else all of them."""
    from graphwd.policy.parsing import suggest

    nearest = suggest(word, known)
    hint = f"did you mean {nearest!r}?" if nearest else f"{there_are} {', '.join(known)}."
    return f"{there_is_no} {word!r}; {hint}"


@contextlib.contextmanager
def _nothing_left_behind() -> Iterator[None]:
    """Makes the signals that end a process remove first what is half written."""

    def end(number: int, frame: object) -> None:
        writing.abandon()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    taken = []
    for name in ("SIGTERM", "SIGHUP", "SIGXCPU"):
        number = getattr(signal, name, None)
        # Not one that is ignored on purpose, as nohup does, nor outside the main thread.
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            with contextlib.suppress(ValueError):
                signal.signal(number, end)
                taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _code_of(run: Callable[[], Any], debug: bool) -> int:
    """Runs the command line, and turns what it raises into one line and an exit code."""
    try:
        with _warnings_in_a_line(debug):
            code = run()
        sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except click.ClickException as error:
        where = ""
        if isinstance(error, click.UsageError) and error.ctx is not None:
            where = f" See '{error.ctx.command_path} --help'."
        message = error.format_message().rstrip()
        end = "" if message.endswith((".", "?", "?)")) else "."
        return _complain(f"{message}{end}{where}", WRONG, debug)
    except (EquivalenceError, Unfulfilled) as error:
        return _complain(str(error), NOT_EQUIVALENT, debug)
    except GraphwdError as error:
        return _complain(str(error), WRONG, debug)
    except (click.Abort, KeyboardInterrupt):
        return _complain("interrupted.", _INTERRUPTED, debug)
    except BrokenPipeError:  # `graphwd plan ... | head`: whoever reads has had enough
        _mute()
        return DONE
    except OSError as error:
        _mute()  # it may be the output that can't be written, and would be tried again
        name = f"{error.filename!r}: " if error.filename else ""
        return _complain(f"{name}{error.strerror or error}.", WRONG, debug)
    except Exception as error:  # noqa: BLE001 # the last resort of a program: it is reported
        return _complain(
            f"unexpected {type(error).__name__}: {error} (run it again with --debug to see where, "
            "and please report it).",
            WRONG,
            debug,
        )


def _mute() -> None:
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def in_shell_words(message: str) -> str:
    """A message of graphwd's with the names of options instead of those of Python's arguments."""
    for argument, option in _OPTIONS.items():
        message = message.replace(argument, option)
    return message


def say(message: str) -> None:
    """Says something beside the results: on standard error, above a bar that is there."""
    click.echo(f"graphwd: {message}", file=sys.stderr)


def _complain(message: str, code: int, debug: bool) -> int:
    from graphwd.plans.tables import printable

    if debug:
        traceback.print_exc()
    message = in_shell_words(" ".join(message.split()))
    say(printable(message))
    return code


@contextlib.contextmanager
def _warnings_in_a_line(debug: bool) -> Iterator[None]:
    """Shows graphwd's own warnings, each once and on one line; all others only to debug."""
    said: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = " ".join(str(message).split())
        if (debug or category.__module__.startswith("graphwd.")) and text not in said:
            from graphwd.plans.tables import printable

            said.add(text)
            say(f"warning: {printable(text)}")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        yield
