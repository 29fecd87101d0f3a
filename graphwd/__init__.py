"""graphwd: weight decay for a Keras model that already exists.

```python
import graphwd

model = graphwd.rewrite(model, graphwd.Policy.recipe("resnet"))
```

Importing this package loads neither Keras nor TensorFlow; the first call that needs them does.
"""

from __future__ import annotations

import importlib

from graphwd.errors import GraphwdError
from graphwd.live.carrying.importing import TYPE_CHECKING, when_imported

if TYPE_CHECKING:
    from typing import Any

    from graphwd.api import inspect, plan, rewrite, rewrite_file, verify, weight_decay
    from graphwd.errors import (
        ArchiveError,
        EquivalenceError,
        ModelError,
        PolicyError,
        UnreachableWeightError,
    )
    from graphwd.graph.equivalence import Report
    from graphwd.plans.plan import (
        DecoupledStrengthWarning,
        Edit,
        Plan,
        UndecidedSlotWarning,
        UnmatchedRuleWarning,
        UnusedPenaltyWarning,
    )
    from graphwd.policy.multiples import times
    from graphwd.policy.policies import Policy, Rule, recipes
    from graphwd.training.decoupling import decouple
    from graphwd.training.l2sp import L2SP
    from graphwd.training.logger import PenaltyLogger
    from graphwd.training.scheduling import StrengthScheduler

_HOMES = {
    "api": ["inspect", "plan", "rewrite", "rewrite_file", "verify", "weight_decay"],
    "training.decoupling": ["decouple"],
    "errors": [
        "ArchiveError",
        "EquivalenceError",
        "ModelError",
        "PolicyError",
        "UnreachableWeightError",
    ],
    "training.l2sp": ["L2SP"],
    "training.logger": ["PenaltyLogger"],
    "training.scheduling": ["StrengthScheduler"],
    "policy.multiples": ["times"],
    "plans.plan": [
        "DecoupledStrengthWarning",
        "Edit",
        "Plan",
        "UndecidedSlotWarning",
        "UnmatchedRuleWarning",
        "UnusedPenaltyWarning",
    ],
    "policy.policies": ["Policy", "Rule", "recipes"],
    "graph.equivalence": ["Report"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "L2SP",
    "ArchiveError",
    "DecoupledStrengthWarning",
    "Edit",
    "EquivalenceError",
    "GraphwdError",
    "ModelError",
    "PenaltyLogger",
    "Plan",
    "Policy",
    "PolicyError",
    "Report",
    "Rule",
    "StrengthScheduler",
    "UndecidedSlotWarning",
    "UnmatchedRuleWarning",
    "UnreachableWeightError",
    "UnusedPenaltyWarning",
    "decouple",
    "inspect",
    "plan",
    "recipes",
    "rewrite",
    "rewrite_file",
    "times",
    "verify",
    "weight_decay",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("graphwd")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'graphwd' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"graphwd.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _make_classes_known() -> None:
    """Registers what Keras looks up by name in files: the carrier, `L2SP`, optimizers."""
    try:
        for name in ("live.carrying.carrier", "training.l2sp", "training.optimizers"):
            importlib.import_module(f"graphwd.{name}")
    except GraphwdError:
        pass  # an unknown Keras is reported by the first call


def _make_presets_known() -> None:
    """Does so for the models of keras-hub, which has to find their own classes by their names."""
    try:  # noqa: SIM105 # contextlib takes long to import, and Ctrl-C may come soon
        importlib.import_module("graphwd.live.carrying.loaders").register_presets()
    except GraphwdError:
        pass


when_imported("keras", _make_classes_known)
when_imported("keras_hub", _make_presets_known)
