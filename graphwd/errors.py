"""The errors that graphwd raises: each message is one sentence that says what to do."""

from __future__ import annotations


class GraphwdError(Exception):
    """The base of all errors that graphwd raises."""


class PolicyError(GraphwdError, ValueError):
    """A policy, a rule, a recipe or a policy file is not valid."""


class ModelError(GraphwdError, ValueError):
    """A model or a layer can't be rebuilt as it is; the message says what would make it work."""


class ArchiveError(GraphwdError):
    """A saved model can't be read or written; a target file is left as it was."""


class EquivalenceError(GraphwdError):
    """A rewritten model is not the original plus the planned edits.

    Attributes:
        report: the `Report` of the verification that failed.
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
