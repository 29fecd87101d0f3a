"""The command line: `graphwd rewrite`, `plan`, `inspect`, `report`, `verify` and `recipes`.

Help, completion and usage errors load nothing but click: each command imports what it needs.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from graphwd.errors import EquivalenceError, GraphwdError
from graphwd.options import (
    Loading,
    PolicyChoice,
    check_recipe,
    complete_recipe,
    complete_source,
    debug_option,
    json_option,
    live_options,
    policy_options,
)
from graphwd.shell import NOT_EQUIVALENT, SETTINGS, Main

if TYPE_CHECKING:
    from graphwd.plans import Plan
    from graphwd.policy import Policy


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

    A model comes from SRC, which is a saved model (.keras or .h5) or app:NAME, an architecture of
    keras.applications. Saved models are read and written as they are, without loading Keras; with
    --live they are loaded.

    Examples:
      graphwd rewrite app:MobileNet mobilenet-wd.keras --recipe mobilenet
      graphwd rewrite resnet.keras resnet-wd.keras --recipe no-bias --weight-decay 5e-4
      graphwd plan resnet.keras --policy decay.toml
      graphwd inspect resnet-wd.keras
      graphwd verify resnet.keras resnet-wd.keras

    Exit codes: 0 done, 1 not equivalent, 2 wrong usage or input. Errors are one line on standard
    error. Colours are for terminals only, and NO_COLOR turns them off.

    Completion for bash (for zsh or fish say zsh_source or fish_source), in ~/.bashrc:
      eval "$(_GRAPHWD_COMPLETE=bash_source graphwd)"
    """


@cli.command()
@click.argument("source", metavar="SRC", shell_complete=complete_source)
@click.argument("target", metavar="DST", type=click.Path())
@policy_options
@live_options
@click.option("--portable", is_flag=True, help="Refuse penalties that Keras alone can't load.")
@click.option("--force", is_flag=True, help="Replace DST if it exists; DST may be SRC then.")
@json_option
@debug_option
def rewrite(
    source: str,
    target: str,
    choice: PolicyChoice,
    loading: Loading,
    portable: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Writes SRC to DST with the regularizers that a policy asks for.

    DST has the same graph, weights and compile state. It is compared with SRC before it gets its
    name: DST is either complete and proved or what it was before. The policy is a file (--policy)
    or a published recipe (--recipe).

    A file is rewritten as it is: no class in it is imported and no weight decoded. With --live it
    is loaded with Keras, which also reaches weights inside composite layers; --import names the
    module that registers classes of your own.

    Examples:
      graphwd rewrite app:MobileNet mobilenet-wd.keras --recipe mobilenet
      graphwd rewrite app:ResNet50 resnet.keras --weights imagenet --recipe resnet
      graphwd rewrite model.keras model-wd.keras --policy decay.toml
      graphwd rewrite model.h5 model.h5 --force --recipe no-bias --l2 5e-5
      graphwd rewrite bert.keras bert-wd.keras --live --recipe bert
      graphwd rewrite mine.keras mine-wd.keras --live --import my_layers --policy decay.toml
    """
    policy = choice.policy()
    way = _rewrite_live if loading.is_live(source) else _rewrite_file
    plan, proof = way(source, target, policy, loading, portable, force)
    size = os.path.getsize(target)
    if as_json:
        _print_json({"target": target, "bytes": size, "proof": proof, **plan.to_dict()})
        return
    from graphwd.report import summary_lines
    from graphwd.tables import printable

    click.echo(f"{printable(target)}: {_size(size)}")
    for line in (*summary_lines(plan), f"proof      {printable(proof)}"):
        click.echo(f"  {line}")


def _rewrite_live(
    source: str, target: str, policy: Policy, loading: Loading, portable: bool, force: bool
) -> tuple[Plan, str]:
    from graphwd import api, sources
    from graphwd.report import Progress

    sources.check_target(target, overwrite=force)
    with Progress("loading") as progress, contextlib.redirect_stdout(sys.stderr):
        model = loading.load(source)
        progress.step("planning")
        plan = api.plan(model, policy)
        progress.step("rewriting")
        copy = api.rewrite(model, policy, verify=False, portable=portable)
        progress.step("proving")
        report = api.verify(model, copy, policy)
        if not report.ok:
            raise EquivalenceError(
                f"The rewritten model is not the original plus the planned edits "
                f"({report.problems[0]}); nothing was written, please report this.",
                report,
            )
        progress.step("writing")
        sources.save(copy, target, overwrite=force)
    return plan, str(report)


def _rewrite_file(
    source: str, target: str, policy: Policy, loading: Loading, portable: bool, force: bool
) -> tuple[Plan, str]:
    from graphwd import api, archive
    from graphwd.errors import UnreachableWeightError
    from graphwd.report import Progress

    with Progress("rewriting"):
        if portable:
            plan = archive.plan_file(source, policy)
            carried = tuple(d.slot.path for d in plan.decisions if d.carried)
            if carried:
                raise UnreachableWeightError(
                    f"No config of Keras's own holds {len(carried)} of the planned penalties "
                    f"({', '.join(carried[:5])}{', ...' if len(carried) > 5 else ''}); leave out "
                    "--portable to let graphwd carry them.",
                    carried,
                )
        plan = api.rewrite_file(source, target, policy, overwrite=force)
    return plan, "equal but for the planned edits: the config, and every stored byte"


@cli.command()
@click.argument("source", metavar="SRC", shell_complete=complete_source)
@policy_options
@live_options
@json_option
@debug_option
def plan(
    source: str,
    choice: PolicyChoice,
    loading: Loading,
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
    from graphwd.report import show_plan

    policy = choice.policy()
    made = _planned(source, policy, loading)
    _print_json(made.to_dict()) if as_json else show_plan(made)


@cli.command()
@click.argument("source", metavar="SRC", shell_complete=complete_source)
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
    from graphwd.report import show_plan

    made = _planned(source, None, loading)
    _print_json(made.to_dict()) if as_json else show_plan(made)


def _planned(source: str, policy: Policy | None, loading: Loading) -> Plan:
    from graphwd import archive
    from graphwd.report import Progress

    if not loading.is_live(source):
        with Progress("reading"):
            if policy is None:
                return archive.inspect_file(source)
            return archive.plan_file(source, policy)
    from graphwd import api

    with Progress("loading") as progress, contextlib.redirect_stdout(sys.stderr):
        model = loading.load(source)
        progress.step("looking")
        return api.inspect(model) if policy is None else api.plan(model, policy)


@cli.command()
@click.argument("source", metavar="SRC", shell_complete=complete_source)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
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
    policy = choice.policy() if choice.given else None
    if os.path.isdir(output):
        raise GraphwdError(f"{output!r} can't be written: it is a directory.")
    if not force and os.path.lexists(output):
        raise GraphwdError(f"{output!r} exists; to replace it pass --force.")
    made = _planned(source, policy, loading)
    try:
        made.save_html(output)
    except OSError as error:  # it names the temporary file, which nobody has asked for
        raise GraphwdError(f"{output!r} can't be written: {error.strerror}.") from error
    from graphwd.tables import printable

    click.echo(f"{printable(output)}: {printable(made.title)}")


@cli.command()
@click.argument("original", metavar="A", shell_complete=complete_source)
@click.argument("rewritten", metavar="B", shell_complete=complete_source)
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
    from graphwd.report import Progress

    policy = choice.policy() if choice.given else None
    loading = replace(loading, live=loading.live or outputs)
    with Progress("comparing") as progress, contextlib.redirect_stdout(sys.stderr):
        models: list[Any] = [original, rewritten]
        if loading.is_live(original, rewritten):
            progress.step("loading")
            models = [loading.load(source) for source in models]
            progress.step("comparing")
        report = api.verify(models[0], models[1], policy, outputs=outputs)
    if as_json:
        _print_json(report.to_dict())
    else:
        from graphwd.tables import printable

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
    from graphwd import policy
    from graphwd.report import show_table
    from graphwd.tables import make_table

    chosen = [recipe for recipe in policy.recipes() if name in (None, recipe.name)]
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
    click.echo(json.dumps(value, indent=2))


def _size(count: int) -> str:
    if count < 1_000_000:
        return f"{count / 1e3:.1f} kB"
    return f"{count / 1e6:,.1f} MB"


def main() -> None:
    """The entry point of the command `graphwd`."""
    cli(prog_name="graphwd")
