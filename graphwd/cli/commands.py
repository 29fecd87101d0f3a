"""The command line: `graphwd rewrite`, `plan`, `inspect`, `report`, `verify` and `recipes`.

Help, completion and usage errors load nothing but click: each command imports what it needs.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from graphwd.cli.options import (
    Loading,
    PolicyChoice,
    check_recipe,
    complete_recipe,
    complete_source,
    debug_option,
    json_option,
    live_options,
    named_file,
    policy_options,
    strict_option,
)
from graphwd.cli.shell import NOT_EQUIVALENT, SETTINGS, Main, Unfulfilled
from graphwd.errors import EquivalenceError

if TYPE_CHECKING:
    from graphwd.plans.plan import Plan
    from graphwd.policy.policies import Policy


def _show_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    import importlib.metadata

    try:
        version = importlib.metadata.version("graphwd")
    except importlib.metadata.PackageNotFoundError:
        version = "from a checkout that is not installed"
    click.echo(f"graphwd {version}")
    context.exit()


@click.group(cls=Main, context_settings=SETTINGS)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version and exit.",
)
@debug_option
def cli() -> None:
    """Gives a Keras model weight decay after the fact.

    A model comes from SRC, which is a saved model (.keras, .h5, or a folder) or app:NAME, an
    architecture of keras.applications. Saved models are read and written as they are, without
    loading Keras; with --live they are loaded.

    Examples:
      graphwd rewrite app:MobileNet mobilenet-wd.keras --recipe mobilenet
      graphwd rewrite a.keras b.keras --recipe no-bias --weight-decay 5e-4
      graphwd plan resnet.keras --policy decay.toml
      graphwd inspect resnet-wd.keras
      graphwd verify resnet.keras resnet-wd.keras

    Exit codes: 0 done, 1 not equivalent (or not what --strict asks for), 2 wrong usage or input.
    Errors are one line on standard error. Colours are for terminals only, and NO_COLOR turns them
    off.

    Completion for bash, in ~/.bashrc (for zsh or fish say zsh_source or fish_source):
      eval "$(_GRAPHWD_COMPLETE=bash_source graphwd)"
    """


@cli.command()
@click.argument(
    "files", nargs=-1, metavar="SRC... [DST]", callback=named_file, shell_complete=complete_source
)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    multiple=True,
    callback=named_file,
    metavar="DST",
    help="Where to write; the same as a second argument.",
)
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False),
    multiple=True,
    callback=named_file,
    metavar="DIR",
    help="Write each SRC to DIR, under its own name.",
)
@policy_options
@live_options
@click.option("--portable", is_flag=True, help="Refuse penalties that Keras alone can't load.")
@click.option("--force", is_flag=True, help="Replace DST if it exists; DST may be SRC then.")
@click.option("--dry-run", is_flag=True, help="Write nothing: the same as 'graphwd plan'.")
@strict_option
@json_option
@debug_option
def rewrite(
    files: tuple[str, ...],
    output: str | None,
    output_dir: str | None,
    choice: PolicyChoice,
    loading: Loading,
    portable: bool,
    force: bool,
    dry_run: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Writes SRC to DST with the regularizers that a policy asks for.

    DST has the same graph, weights and compile state. It is compared with SRC before it gets its
    name: DST is either complete and proved or what it was before. The policy is a file (--policy)
    or a published recipe (--recipe). SRC may be a folder: a preset of keras-hub's, or a model that
    was saved with zipped=False; DST is one then.

    A file is rewritten as it is: no class in it is imported and no weight decoded. With --live it
    is loaded with Keras, which also reaches weights inside composite layers; --import names the
    module that registers classes of your own.

    Examples:
      graphwd rewrite app:MobileNet mobilenet-wd.keras --recipe mobilenet
      graphwd rewrite app:ResNet50 resnet.keras --weights imagenet --recipe resnet
      graphwd rewrite model.keras model-wd.keras --policy decay.toml
      graphwd rewrite model.h5 model.h5 --force --recipe no-bias --l2 5e-5
      graphwd rewrite bert.keras bert-wd.keras --live --recipe bert
      graphwd rewrite a.keras b.keras --live --import my_layers --policy decay.toml
      graphwd rewrite *.keras --output-dir decayed --recipe resnet --strict
    """
    jobs = _jobs(files, output, output_dir, dry_run)
    policy = choice.policy()
    if dry_run:
        _show_plans([_planned(source, policy, loading) for source, _ in jobs], strict, as_json)
        return
    if output_dir is not None:
        os.makedirs(output_dir, exist_ok=True)
    accept = _acceptance(strict, "; nothing was written")
    told = []
    for source, target in jobs:
        way = _rewrite_live if loading.is_live(source) else _rewrite_file
        plan, proof = way(source, target, policy, loading, portable, force, accept)
        size = _bytes_in(target)
        told.append({"target": target, "bytes": size, "proof": proof, **plan.to_dict()})
        if not as_json:
            _tell(plan, target, size, proof)
    if as_json:
        _print_json(told[0] if len(told) == 1 and output_dir is None else {"files": told})


def _jobs(
    paths: tuple[str, ...], output: str | None, output_dir: str | None, dry_run: bool
) -> list[tuple[str, str]]:
    """What is to be written where: pairs of a source and a target."""
    context = click.get_current_context()
    if not paths:
        raise click.UsageError("Missing argument 'SRC'.", context)
    if output is not None and output_dir is not None:
        raise click.UsageError("Give -o or --output-dir, not both.", context)
    if output_dir is not None:
        targets = [os.path.join(output_dir, _own_name(path)) for path in paths]
        twice = next((target for target in targets if targets.count(target) > 1), None)
        if twice is not None:
            raise click.UsageError(f"Two of the files would be written to {twice!r}.", context)
        return list(zip(paths, targets, strict=True))
    if output is None and dry_run and len(paths) == 1:
        return [(paths[0], "")]
    if output is None and len(paths) < 2:
        raise click.UsageError("Missing argument 'DST'.", context)
    if len(paths) > (1 if output is not None else 2):
        raise click.UsageError("Several files need --output-dir DIR.", context)
    return [(paths[0], paths[1] if output is None else output)]


def _own_name(source: str) -> str:
    """The name of what is written for a source into a folder."""
    from graphwd.cli import sources

    if sources.is_application(source):
        return source.removeprefix(sources.APPLICATION) + ".keras"
    return os.path.basename(os.path.normpath(source))


def _acceptance(strict: bool, unwritten: str = "") -> Callable[[Plan], None]:
    """What refuses a plan that does nothing, or less than its policy says, upon `--strict`."""

    def accept(plan: Plan) -> None:
        slots = [edit.slot for edit in plan.slots]
        for number, rule in enumerate(plan.policy or (), 1):
            if strict and not any(map(rule.matches, slots)):
                raise Unfulfilled(
                    f"Rule {number} matches nothing of {plan.source}, which --strict doesn't "
                    f"allow{unwritten}."
                )
        if strict and not len(plan):
            raise Unfulfilled(
                f"The policy edits nothing of {plan.source}, which --strict doesn't "
                f"allow{unwritten}."
            )

    return accept


def _tell(plan: Plan, target: str, size: int, proof: str) -> None:
    from graphwd.cli.terminal import summary_lines
    from graphwd.plans.tables import printable

    click.echo(f"{printable(target)}: {_size(size)}")
    for line in (*summary_lines(plan), f"proof      {printable(proof)}"):
        click.echo(f"  {line}")


def _rewrite_live(
    source: str,
    target: str,
    policy: Policy,
    loading: Loading,
    portable: bool,
    force: bool,
    accept: Callable[[Plan], None],
) -> tuple[Plan, str]:
    from graphwd import api
    from graphwd.cli import sources
    from graphwd.cli.terminal import progress

    sources.check_target(target, overwrite=force, source=source)
    steps = ("loading", "rewriting", "writing")
    with progress(*steps) as next_step, contextlib.redirect_stdout(sys.stderr):
        model = loading.load(source)
        next_step()
        copy, plan, report = api.rewrite_and_tell(model, policy, accept, portable=portable)
        if not report.ok:
            raise EquivalenceError(
                f"The rewritten model is not the original plus the planned edits "
                f"({report.problems[0]}); nothing was written, please report this.",
                report,
            )
        next_step()
        sources.save(copy, target, overwrite=force, source=source)
    return plan, str(report)


def _rewrite_file(
    source: str,
    target: str,
    policy: Policy,
    loading: Loading,
    portable: bool,
    force: bool,
    accept: Callable[[Plan], None],
) -> tuple[Plan, str]:
    from graphwd.errors import UnreachableWeightError
    from graphwd.saved import archive

    with archive.open_saved(source) as opened:
        plan = archive.plan_archive(opened, policy)
        accept(plan)
        carried = tuple(edit.path for edit in plan.slots if edit.carried)
        if portable and carried:
            raise UnreachableWeightError(
                f"No config of Keras's own holds {len(carried)} of the planned penalties "
                f"({', '.join(carried[:5])}{', ...' if len(carried) > 5 else ''}); leave out "
                "--portable to let graphwd carry them.",
                carried,
            )
        archive.carry_out(plan, opened, target, overwrite=force)
    return plan, "equal but for the planned edits: the config, and every stored byte"


@cli.command()
@click.argument("source", metavar="SRC", callback=named_file, shell_complete=complete_source)
@policy_options
@live_options
@strict_option
@json_option
@debug_option
def plan(
    source: str,
    choice: PolicyChoice,
    loading: Loading,
    strict: bool,
    as_json: bool,
) -> None:
    """Shows what a policy would do to SRC, and writes nothing.

    Slots whose paths differ in numbers only are one line, with * for the numbers. Then come the
    policy's rules, with what each decides on, and the roles, each with what its penalties add to
    the loss, now and as planned, and the slots that add most. A share is one of the parameters that
    can take a penalty. What is dormant is frozen: Keras skips the penalty until the weights are
    trainable. What is carried is in no config of Keras's own: the file needs 'import graphwd'. What
    is unreached is a weight that no config reaches and no rule selects.

    What the weights inside a composite or custom layer are is known of loaded models only: the file
    says of them how many they are, and --live loads it.

    Examples:
      graphwd plan model.keras --recipe mobilenet
      graphwd plan app:ResNet50 --policy decay.toml
      graphwd plan model.keras --recipe no-bias --json | jq '.edits[].path'
      graphwd plan bert.keras --live --import my_layers --recipe bert
    """
    made = _planned(source, choice.policy(), loading)
    _show_plans([made], strict, as_json)


@cli.command()
@click.argument("source", metavar="SRC", callback=named_file, shell_complete=complete_source)
@live_options
@json_option
@debug_option
def inspect(source: str, loading: Loading, as_json: bool) -> None:
    """Shows what is penalised now in SRC.

    Every slot is listed, so that its path, layer and role can be used in a policy; see 'graphwd
    plan --help' for the columns.

    Examples:
      graphwd inspect model.keras
      graphwd inspect app:MobileNet
      graphwd inspect model.keras --live --json
      graphwd inspect model.keras --json | jq '.summary.whole.penalty'
    """
    _show_plans([_planned(source, None, loading)], False, as_json)


def _show_plans(plans: list[Plan], strict: bool, as_json: bool) -> None:
    from graphwd.cli.terminal import show_plan

    if as_json:
        told = [plan.to_dict() for plan in plans]
        _print_json(told[0] if len(told) == 1 else {"plans": told})
    for plan in plans if not as_json else ():
        show_plan(plan)
    for plan in plans:
        _acceptance(strict)(plan)


def _planned(source: str, policy: Policy | None, loading: Loading) -> Plan:
    from graphwd.cli.terminal import progress
    from graphwd.saved import archive

    if not loading.is_live(source):
        return archive.inspect_file(source) if policy is None else archive.plan_file(source, policy)
    from graphwd import api

    with progress("loading", "looking") as next_step, contextlib.redirect_stdout(sys.stderr):
        model = loading.load(source)
        next_step()
        return api.inspect(model) if policy is None else api.plan(model, policy)


@cli.command()
@click.argument("source", metavar="SRC", callback=named_file, shell_complete=complete_source)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    callback=named_file,
    metavar="FILE",
    required=True,
    help="Where to write the page.",
)
@policy_options
@live_options
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@debug_option
def report(
    source: str,
    output: str,
    choice: PolicyChoice,
    loading: Loading,
    force: bool,
) -> None:
    """Draws SRC, and what a policy would do to it, on one HTML page.

    The page has the model's graph with each layer coloured by what it gets, charts, and the tables
    of 'graphwd plan'. It is one file and asks no network for anything. Without a policy it shows
    what is penalised now. Point at a box of the graph to read what each of its slots gets.

    Examples:
      graphwd report model.keras -o now.html
      graphwd report model.keras --recipe resnet -o plan.html
      graphwd report app:MobileNet --recipe mobilenet -o mobilenet.html
    """
    from graphwd import writing

    policy = choice.policy() if choice.given else None
    writing.check_target(output, overwrite=force)
    made = _planned(source, policy, loading)
    made.save_html(output, overwrite=force)
    from graphwd.plans.tables import printable

    click.echo(f"{printable(output)}: {printable(made.title)}")


@cli.command()
@click.argument("original", metavar="A", callback=named_file, shell_complete=complete_source)
@click.argument("rewritten", metavar="B", callback=named_file, shell_complete=complete_source)
@policy_options
@live_options
@click.option("--outputs", is_flag=True, help="Also compare outputs (loads both files).")
@json_option
@debug_option
def verify(
    original: str,
    rewritten: str,
    choice: PolicyChoice,
    loading: Loading,
    outputs: bool,
    as_json: bool,
) -> None:
    """Proves that B is A plus a policy's edits, or says what differs.

    Graph, configs and every stored array are compared. Without a policy any regularizers are
    accepted in B. The exit code is 1 when anything else differs, so that a script can ask. Files
    are compared as they are; with --live, --outputs or app:NAME both are loaded.

    Examples:
      graphwd verify model.keras model-wd.keras
      graphwd verify model.keras model-wd.keras --recipe mobilenet
      graphwd verify model.keras model-wd.keras --outputs
    """
    from graphwd import api
    from graphwd.cli.terminal import progress
    from graphwd.live.proving import verification

    policy = choice.policy() if choice.given else None
    loading = replace(loading, live=loading.live or outputs)
    live = loading.is_live(original, rewritten)
    models: list[Any] = [original, rewritten]
    steps = [*(f"loading {source}" for source in models if live), "comparing"]
    with progress(*steps) as next_step, contextlib.redirect_stdout(sys.stderr):
        for place, source in enumerate(models):
            if live:
                models[place] = loading.load(source)
                next_step()
        if live:  # what no file has, such as how far a seed has gone, is not compared
            report = verification.verify_models(
                models[0], models[1], policy, outputs=outputs, unsaved=False
            )
        else:
            report = api.verify(models[0], models[1], policy)
    if as_json:
        _print_json(report.to_dict())
    else:
        from graphwd.plans.tables import printable

        click.echo("\n".join(map(printable, str(report).splitlines())))
    if not report.ok:
        click.get_current_context().exit(NOT_EQUIVALENT)


@cli.command()
@click.argument("name", required=False, callback=check_recipe, shell_complete=complete_recipe)
@json_option
@debug_option
def recipes(name: str | None, as_json: bool) -> None:
    """Lists the published recipes, or tells everything about one.

    A strength is a weight decay, as the papers and PyTorch mean it, or a factor of Keras's L2; a
    weight decay of X is an L2 factor of X/2.

    Examples:
      graphwd recipes
      graphwd recipes mobilenet
      graphwd recipes --json | jq '.recipes[].name'
    """
    from graphwd.cli.terminal import show_table
    from graphwd.plans.tables import make_table
    from graphwd.policy import policies

    chosen = [recipe for recipe in policies.recipes() if name in (None, recipe.name)]
    if as_json:
        _print_json({"recipes": [recipe.to_dict() for recipe in chosen]})
        return
    units = {"weight_decay": "weight decay", "l2": "L2"}
    if name is None:
        table = {
            "recipe": [recipe.name for recipe in chosen],
            "strength": [f"{units[recipe.unit]} {recipe.coefficient:g}" for recipe in chosen],
            "weights": [recipe.weights.rstrip(".") for recipe in chosen],
            "source": [recipe.source for recipe in chosen],
        }
        show_table(make_table("Recipes", table))
        return
    recipe = chosen[0]
    facts = {
        recipe.name: recipe.title,
        "source": recipe.source,
        "quote": recipe.quote and f'"{recipe.quote}"',
        "strength": f"{units[recipe.unit]} {recipe.coefficient:g}",
        "mechanism": recipe.mechanism,
        "weights": recipe.weights,
        "notes": recipe.notes,
    }
    width = max(map(len, facts)) + 2
    for key, text in facts.items():
        if text:
            indent = " " * width
            click.echo(click.wrap_text(text, 88, f"{key:<{width}}", indent))
    for number, rule in enumerate(recipe.policy, 1):
        click.echo(f"{f'rule {number}':<{width}}{rule.describe()} -> {rule.gives}")


def _print_json(value: Any) -> None:
    click.echo(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    """Plain data without what JSON has no number for: not a number, and infinity."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _bytes_in(path: str) -> int:
    """The size of a file, or of all files in a folder."""
    if not os.path.isdir(path):
        return os.path.getsize(path)
    names = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
    return sum(map(os.path.getsize, names))


def _size(count: int) -> str:
    if count < 1_000_000:
        return f"{count / 1e3:.1f} kB"
    return f"{count / 1e6:,.1f} MB"


def main() -> None:
    """Runs the command line."""
    cli(prog_name="graphwd")
