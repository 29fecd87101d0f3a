"""What commands do with sources, each as a file or loaded: plan, rewrite, compare."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from graphwd import api
from graphwd.cli import models
from graphwd.cli.options import Loading, wrong_usage
from graphwd.cli.program import Unfulfilled
from graphwd.cli.terminal import progress
from graphwd.plans.plan import Plan
from graphwd.policy.policies import Policy

if TYPE_CHECKING:
    from graphwd.graph.equivalence import Report


def pair_targets(
    paths: Sequence[str], output: str | None, output_dir: str | None, dry_run: bool
) -> list[tuple[str, str]]:
    """What is to be written where: pairs of a source and a target."""
    if not paths:
        raise wrong_usage("Missing argument 'SRC'.")
    if output is not None and output_dir is not None:
        raise wrong_usage("Give -o or --output-dir, not both.")
    if output_dir is not None:
        targets = [os.path.join(output_dir, _own_name(path)) for path in paths]
        twice = next((target for target in targets if targets.count(target) > 1), None)
        if twice is not None:
            raise wrong_usage(f"Two of the files would be written to {twice!r}.")
        return list(zip(paths, targets, strict=True))
    if output is None and dry_run and len(paths) == 1:
        return [(paths[0], "")]
    if output is None and len(paths) < 2:
        raise wrong_usage("Missing argument 'DST'.")
    if len(paths) > (1 if output is not None else 2):
        raise wrong_usage("Several files need --output-dir DIR.")
    return [(paths[0], paths[1] if output is None else output)]


def _own_name(source: str) -> str:
    """The name of what is written for a source into a folder."""
    if models.is_application(source):
        return source.removeprefix(models.APPLICATION) + ".keras"
    return os.path.basename(os.path.normpath(source))


def require_effect(plan: Plan, unwritten: str = "") -> None:
    """Refuses a plan that does nothing, or less than its policy says, as `--strict` asks."""
    lacks = list(plan.unmatched)
    if not len(plan):
        lacks.append(f"The policy edits nothing of {plan.source}.")
    if lacks:
        raise Unfulfilled(f"{lacks[0].removesuffix('.')}, which --strict doesn't allow{unwritten}.")


def plan_source(source: str, policy: Policy | None, loading: Loading) -> Plan:
    """What a policy does to a source; without one, what is penalised now."""
    if not loading.is_live(source):
        return api.inspect(source) if policy is None else api.plan(source, policy)
    with progress("loading", "looking") as next_step:
        model = loading.load(source)
        next_step()
        return api.inspect(model) if policy is None else api.plan(model, policy)


def rewrite_source(
    source: str,
    target: str,
    policy: Policy,
    loading: Loading,
    accept: Callable[[Plan], None],
    *,
    overwrite: bool,
) -> tuple[Plan, str]:
    """Writes a source to a target; what was planned, once accepted, and what the proof says."""
    live = loading.is_live(source)
    models.check_model_target(target, overwrite=overwrite, source=source)
    if not live:
        from graphwd.saved import rewriting
        from graphwd.saved.folders import open_saved

        with open_saved(source) as opened:
            plan = rewriting.plan_archive(opened, policy)
            accept(plan)
            rewriting.carry_out(plan, opened, target, overwrite=overwrite)
        return plan, "equal but for the planned edits: the config, and every stored byte"
    with progress("loading", "rewriting", "writing") as next_step:
        model = loading.load(source)
        next_step()
        copy, plan, report = api.rewrite_and_tell(model, policy, accept)
        next_step()
        models.save(copy, target, overwrite=overwrite, source=source)
    return plan, str(report)


def compare_sources(
    original: str, rewritten: str, policy: Policy | None, loading: Loading, *, outputs: bool
) -> Report:
    """Compares two sources, as files or loaded."""
    if not loading.is_live(original, rewritten):
        return api.verify(original, rewritten, policy)
    with progress(f"loading {original}", f"loading {rewritten}", "comparing") as next_step:
        loaded: list[Any] = []
        for source in (original, rewritten):
            loaded.append(loading.load(source))
            next_step()
        from graphwd.live.proving import verification

        # What no file has, such as how far a seed has gone, is not compared.
        return verification.verify_models(
            loaded[0], loaded[1], policy, outputs=outputs, unsaved=False
        )
