"""The errors that graphwd raises: each message is one sentence that says what to do."""

from __future__ import annotations

import os


class GraphwdError(Exception):
    """The base of all errors that graphwd raises."""


class PolicyError(GraphwdError, ValueError):
    """A policy, a rule, a recipe or a policy file is not valid."""


class ModelError(GraphwdError, ValueError):
    """A model can't be read, copied or edited; the message says what would make it work."""


class ArchiveError(GraphwdError):
    """A file can't be read or written; what was under the name of a target is unchanged."""


class EquivalenceError(GraphwdError):
    """A rewritten model is not the original plus the planned edits.

    Attributes:
        report: what the comparison found, where it was one of models: `str(report)` has all of it.
    """

    def __init__(self, message: str, report: object = None) -> None:
        super().__init__(message)
        self.report = report


class UnreachableWeightError(GraphwdError):
    """A policy asks for a regularizer on weights that no layer's config can express.

    Attributes:
        paths: the paths of these weights.
    """

    def __init__(self, message: str, paths: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.paths = paths


def reason(error: Exception) -> str:
    """What went wrong, without Python's or the system's error number."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def name_of(path: object) -> str:
    """What to call a file in messages, and whether it can be one: text, without surrogates.

    Raises:
        ArchiveError: when it is no path.
    """
    try:
        name = os.fspath(path)  # type: ignore[call-overload] # anything may be given
    except TypeError:
        raise ArchiveError(f"{path!r} is no path: give a string or a pathlib.Path.") from None
    return os.fsdecode(name)
