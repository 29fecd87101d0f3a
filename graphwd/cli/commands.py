"""The command line: `graphwd rewrite`, `plan`, `inspect`, `report`, `verify` and `recipes`.

Help, completion and usage errors load nothing but click: each command imports what it needs.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from graphwd.cli.options import (
    FileName,
    Loading,
    ModelName,
    PolicyChoice,
    RecipeName,
    debug_option,
    json_option,
    live_options,
    policy_options,
    single_option,
    strict_option,
)
from graphwd.cli.program import NOT_EQUIVALENT, SETTINGS, Main

if TYPE_CHECKING:
    from graphwd.plans.plan import Plan


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

    Completion for bash, in ~/.bashrc (or zsh_source, fish_source):
      eval "$(_GRAPHWD_COMPLETE=bash_source graphwd)"
    """


@cli.command()
@click.argument("files", nargs=-1, metavar="SRC... [DST]", type=ModelName())
@single_option(
    "-o",
    "--output",
    type=FileName(),
    metavar="DST",
    help="Where to write; the same as a second argument.",
)
@single_option(
    "--output-dir",
    type=FileName(file_okay=False),
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
      graphwd rewrite app:VGG16 vgg.keras --weights imagenet --recipe vgg
      graphwd rewrite model.keras model-wd.keras --policy decay.toml
      graphwd rewrite model.h5 model.h5 --force --recipe no-bias --l2 5e-5
      graphwd rewrite bert.keras bert-wd.keras --live --recipe bert
      graphwd rewrite a.keras b.keras --live --import my_layers --recipe resnet
      graphwd rewrite *.keras --output-dir decayed --recipe resnet --strict
    """
    from rich.filesize import decimal

    from graphwd.cli import sources
    from graphwd.cli.terminal import show_facts, show_json, size_of, summarize
    from graphwd.plans.plan import refuse_carried

    pairs = sources.pair_targets(files, output, output_dir, dry_run)
    policy = choice.policy()
    if dry_run:
        plans = [sources.plan_source(source, policy, loading) for source, _ in pairs]
        _show_plans(plans, strict, as_json)
        return

    def accept(plan: Plan) -> None:
        if strict:
            sources.require_effect(plan, "; no copy of it was written")
        if portable:
            refuse_carried(plan)

    if output_dir is not None:
        os.makedirs(output_dir, exist_ok=True)
    told = []
    for source, target in pairs:
        plan, proof = sources.rewrite_source(
            source, target, policy, loading, accept, overwrite=force
        )
        size = size_of(target)
        if as_json:
            told.append({"target": target, "bytes": size, "proof": proof, **plan.to_dict()})
        else:
            show_facts(f"{target}: {decimal(size)}", [*summarize(plan), ("proof", proof)])
    if as_json:
        show_json(told[0] if len(told) == 1 and output_dir is None else {"files": told})


@cli.command()
@click.argument("source", metavar="SRC", type=ModelName())
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
    is unreached is a weight that no config reaches and no rule penalises.

    What the weights inside a composite or custom layer are is known of loaded models only: the file
    says of them how many they are, and --live loads it.

    Examples:
      graphwd plan model.keras --recipe mobilenet
      graphwd plan app:ResNet50 --policy decay.toml
      graphwd plan model.keras --recipe no-bias --json | jq '.edits[].path'
      graphwd plan bert.keras --live --import my_layers --recipe bert
    """
    from graphwd.cli.sources import plan_source

    _show_plans([plan_source(source, choice.policy(), loading)], strict, as_json)


@cli.command()
@click.argument("source", metavar="SRC", type=ModelName())
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
    from graphwd.cli.sources import plan_source

    _show_plans([plan_source(source, None, loading)], False, as_json)


def _show_plans(plans: list[Plan], strict: bool, as_json: bool) -> None:
    from graphwd.cli.sources import require_effect
    from graphwd.cli.terminal import show_json, show_plan

    if as_json:
        told = [plan.to_dict() for plan in plans]
        show_json(told[0] if len(told) == 1 else {"plans": told})
    for plan in plans:
        if not as_json:
            show_plan(plan)
    for plan in plans if strict else ():
        require_effect(plan)


@cli.command()
@click.argument("source", metavar="SRC", type=ModelName())
@single_option(
    "-o",
    "--output",
    type=FileName(),
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
    from graphwd.cli.sources import plan_source
    from graphwd.plans.tables import printable

    policy = choice.policy() if choice.given else None
    writing.check_target(output, overwrite=force)
    made = plan_source(source, policy, loading)
    made.save_html(output, overwrite=force)
    click.echo(f"{printable(output)}: {printable(made.title)}")


@cli.command()
@click.argument("original", metavar="A", type=ModelName())
@click.argument("rewritten", metavar="B", type=ModelName())
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
    from graphwd.cli.sources import compare_sources
    from graphwd.cli.terminal import show_json, show_report

    policy = choice.policy() if choice.given else None
    loading = replace(loading, live=loading.live or outputs)
    report = compare_sources(original, rewritten, policy, loading, outputs=outputs)
    if as_json:
        show_json(report.to_dict())
    else:
        show_report(report)
    if not report.ok:
        click.get_current_context().exit(NOT_EQUIVALENT)


@cli.command()
@click.argument("name", required=False, type=RecipeName())
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
    from graphwd.cli.terminal import show_facts, show_json, show_table
    from graphwd.plans.tables import make_table
    from graphwd.policy import policies

    chosen = [recipe for recipe in policies.recipes() if name in (None, recipe.name)]
    if as_json:
        show_json({"recipes": [recipe.to_dict() for recipe in chosen]})
        return
    units = {"weight_decay": "weight decay", "l2": "L2"}
    strengths = [f"{units[recipe.unit]} {recipe.coefficient:g}" for recipe in chosen]
    if name is None:
        table = {
            "recipe": [recipe.name for recipe in chosen],
            "strength": strengths,
            "weights": [recipe.weights.rstrip(".") for recipe in chosen],
            "source": [recipe.source for recipe in chosen],
        }
        show_table(make_table("Recipes", table))
        return
    recipe = chosen[0]
    facts = {
        "source": recipe.source,
        "quote": recipe.quote and f'"{recipe.quote}"',
        "strength": strengths[0],
        "mechanism": recipe.mechanism,
        "weights": recipe.weights,
        "notes": recipe.notes,
    }
    for number, rule in enumerate(recipe.policy, 1):
        facts[f"rule {number}"] = f"{rule.describe()} -> {rule.gives}"
    told = [(key, text) for key, text in facts.items() if text]
    show_facts(f"{recipe.name}: {recipe.title}", told)
