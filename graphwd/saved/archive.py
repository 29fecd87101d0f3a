"""Archives: saved models planned, inspected, rewritten and compared, without Keras."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from graphwd.errors import PolicyError
from graphwd.graph.slots import set_regularizers
from graphwd.plans.decays import from_config
from graphwd.plans.plan import Plan, make_plan
from graphwd.policy import regularizers
from graphwd.policy.policies import Policy
from graphwd.saved.files import Path
from graphwd.saved.folders import open_saved as open_saved  # part of this module's interface
from graphwd.saved.models import Archive as Archive  # part of this module's interface
from graphwd.saved.stored import StoredWeights
from graphwd.saved.verification import check_written

if TYPE_CHECKING:  # at run time what needs h5py is imported for HDF5 only
    from graphwd.saved.reach import Unreached


def inspect_file(path: Path) -> Plan:
    """Says what is penalised now in a saved model.

    Args:
        path: A `.keras` or a whole-model `.h5` file.

    Returns:
        A `Plan` without edits; its notes name the weights that the file doesn't tell of.

    Raises:
        ArchiveError: when the file is no saved model.
    """
    with open_saved(path) as archive:
        return _planned(archive, None)


def plan_file(path: Path, policy: Policy) -> Plan:
    """Plans what a policy does to a saved model.

    Args:
        path: A `.keras` or a whole-model `.h5` file.
        policy: A `Policy`.

    Returns:
        A `Plan`; its notes name the weights that the file doesn't tell of.

    Raises:
        ArchiveError: when the file is no saved model.
    """
    with open_saved(path) as archive:
        return _planned(archive, policy)


def _planned(archive: Archive, policy: Policy | None) -> Plan:
    slots, reach = archive.shaped_slots()
    return make_plan(
        slots,
        policy,
        source=archive.path,
        notes=_notes(reach.unreached),
        serialized=archive.config,
        sizes=reach.sizes,
        hidden=reach.hidden,
        measure=StoredWeights(archive.path),
        decays=None if policy is not None else from_config(archive.compile_config, slots),
    )


def _notes(unreached: Sequence[Unreached]) -> tuple[str, ...]:
    if not unreached:
        return ()
    names = [str(layer) for layer in unreached[:3]]
    if len(unreached) > 3:
        names.append(f"and {len(unreached) - 3} layers more")
    return (
        "The file stores weights that no slot of its config reaches; rewrite the loaded model "
        f"(--live) to penalize them: {'; '.join(names)}.",
    )


def rewrite_file(
    source: Path,
    target: Path,
    policy: Policy,
    *,
    overwrite: bool = False,
    verify: bool = True,
    accept: Callable[[Plan], None] | None = None,
) -> Plan:
    """Rewrites a saved model with the regularizers that a policy asks for.

    Neither Keras nor its backend is imported, no code from the file runs, and the weights are
    copied as they are, at the speed of a copy.

    Args:
        source: A `.keras` or a whole-model `.h5` file.
        target: Where to write; a file of the same kind. It is what it was until the result is
            complete and on disk. A symbolic link stays; the file that it points to is replaced.
        policy: A `Policy`.
        overwrite: Whether an existing target is replaced; needed, too, to rewrite the source in
            place.
        verify: Whether the result is read back and compared with the source, config and every
            stored byte, before it gets the target's name.
        accept: Called with the plan before anything is written, to refuse it with an error.

    Returns:
        The `Plan` that was carried out.

    Raises:
        ArchiveError: when the source is no saved model, or the target can't be written.
        EquivalenceError: when the result is not the source plus the planned edits.

    Example:
    ```python
    rewrite_file("resnet.keras", "resnet_decay.keras", Policy.load("decay.toml"))
    ```
    """
    with open_saved(source) as archive:
        plan = _planned(archive, policy)
        for edit in plan:
            if regularizers.wants_start(edit.after):
                raise PolicyError(
                    f"{regularizers.describe(edit.after)} on {edit.path} is measured "
                    "from where the weights start, which no rewriting of a file can record; load "
                    "the model, and give it to graphwd.rewrite (--live)."
                )
        if accept is not None:
            accept(plan)
        edits = plan.config_edits()
        config = set_regularizers(archive.config, edits)
        check = functools.partial(check_written, archive, edits) if verify else None
        archive.write(target, config, overwrite=overwrite, check=check)
    return plan
