"""The command line: `graphwd rewrite`, `plan`, `inspect`, `report`, `verify` and `recipes`.

Help, completion and usage errors load nothing but click: each command imports what it needs.
"""

from __future__ import annotations

import contextlib
import inspect as inspect_module
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from graphwd.errors import EquivalenceError, GraphwdError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from graphwd.plans import Plan
    from graphwd.policy import Policy

DONE, NOT_EQUIVALENT, WRONG = 0, 1, 2
_INTERRUPTED = 130  # what shells expect of a program that Ctrl-C ended

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _kept(help_text: str | None) -> str | None:
    """Marks the paragraphs of a help text that click must not fill: those with indented lines."""
    if help_text is None:
        return None
    paragraphs = inspect_module.cleandoc(help_text).split("\n\n")
    return "\n\n".join("\b\n" + text if "\n  " in text else text for text in paragraphs)


class _Command(click.Command):
    """A command whose help keeps its examples as they are."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.help = _kept(self.help)


class _Main(click.Group):
    """The group of all commands: errors are one line, exit codes are graphwd's."""

    command_class = _Command

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.help = _kept(self.help)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in their own order, not the alphabet's

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise click.UsageError(_unknown("command", args[0], self.commands), ctx)
        return super().resolve_command(ctx, args)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        arguments = list(sys.argv[1:] if args is None else args)
        options = arguments[: arguments.index("--")] if "--" in arguments else arguments

        def run() -> Any:
            return super(_Main, self).main(
                args=arguments or ["--help"],
                prog_name=prog_name,
                complete_var=complete_var,
                standalone_mode=False,
                **extra,
            )

        if not standalone_mode:
            return run()
        code = _code_of(run, "--debug" in options)
        sys.exit(code if arguments else WRONG)


def _unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """The message for a misspelt name, with the nearest right one or else all of them."""
    from graphwd.policy import suggest

    known = list(known)
    nearest = suggest(word, known)
    hint = f"did you mean {nearest!r}?" if nearest else f"the {kind}s are {', '.join(known)}."
    return f"There is no {kind} {word!r}; {hint}"


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
        end = "" if message.endswith((".", "?")) else "."
        return _complain(f"{message}{end}{where}", WRONG, debug)
    except EquivalenceError as error:
        return _complain(str(error), NOT_EQUIVALENT, debug)
    except GraphwdError as error:
        return _complain(str(error), WRONG, debug)
    except (click.Abort, KeyboardInterrupt):
        return _complain("interrupted.", _INTERRUPTED, debug)
    except BrokenPipeError:  # `graphwd plan ... | head`: whoever reads has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        name = f"{error.filename!r}: " if error.filename else ""
        return _complain(f"{name}{error.strerror or error}.", WRONG, debug)
    except Exception as error:  # noqa: BLE001 # the last resort of a program: it is reported
        return _complain(
            f"unexpected {type(error).__name__}: {error} (run it again with --debug to see where, "
            "and please report it).",
            WRONG,
            debug,
        )


def _complain(message: str, code: int, debug: bool) -> int:
    from graphwd.tables import printable

    if debug:
        traceback.print_exc()
    click.echo(f"graphwd: {printable(' '.join(message.split()))}", err=True)
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
            from graphwd.tables import printable

            said.add(text)
            click.echo(f"graphwd: warning: {printable(text)}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        yield


def _complete_source(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Completes a saved model's name; those of architectures would take loading Keras."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def _complete_recipe(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from graphwd.policy import recipes

    return [
        CompletionItem(recipe.name, help=recipe.title)
        for recipe in recipes()
        if recipe.name.startswith(incomplete)
    ]


def _check_recipe(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | None:
    from graphwd.policy import recipes

    known = [recipe.name for recipe in recipes()]
    if value is not None and value not in known:
        raise click.UsageError(_unknown("recipe", value, known), context)
    return value


def _policy_options(function: _Function) -> _Function:
    """Adds the options that say which policy."""
    for option in (
        click.option(
            "--l2", type=float, metavar="X", help="Strength for --recipe: a factor of L2."
        ),
        click.option(
            "--weight-decay",
            type=float,
            metavar="X",
            help="Strength for --recipe, in the papers' unit: the same as --l2 X/2.",
        ),
        click.option(
            "--recipe",
            callback=_check_recipe,
            shell_complete=_complete_recipe,
            metavar="NAME",
            help="A published recipe; 'graphwd recipes' lists them.",
        ),
        click.option(
            "--policy",
            "policy_file",
            type=click.Path(),
            metavar="FILE",
            help="A policy file, .toml or .json.",
        ),
    ):
        function = option(function)
    return function


def _live_options(function: _Function) -> _Function:
    """Adds the options that say how a model is loaded."""
    for option in (
        click.option(
            "--weights",
            type=click.Choice(["imagenet"]),
            help="For app:NAME: download trained weights; without it they are random.",
        ),
        click.option(
            "--live",
            is_flag=True,
            help="Load the file with Keras. Reaches weights inside composite layers.",
        ),
    ):
        function = option(function)
    return function


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
_debug_option = click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    help="Show tracebacks, and the warnings of other packages.",
)
_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=_Main, context_settings=_SETTINGS)
@click.version_option(package_name="graphwd", message="%(prog)s %(version)s")
@_debug_option
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
@click.argument("source", metavar="SRC", shell_complete=_complete_source)
@click.argument("target", metavar="DST", type=click.Path())
@_policy_options
@_live_options
@click.option("--portable", is_flag=True, help="Refuse penalties that Keras alone can't load.")
@click.option("--force", is_flag=True, help="Replace DST if it exists; DST may be SRC then.")
@_json_option
@_debug_option
def rewrite(
    source: str,
    target: str,
    policy_file: str | None,
    recipe: str | None,
    weight_decay: float | None,
    l2: float | None,
    live: bool,
    weights: str | None,
    portable: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Writes SRC to DST with the regularizers that a policy asks for.

    DST has the same graph, weights and compile state. It is compared with SRC before it gets its
    name: DST is either complete and proved or what it was before. The policy is a file (--policy)
    or a published recipe (--recipe).

    Examples:
      graphwd rewrite app:MobileNet mobilenet-wd.keras --recipe mobilenet
      graphwd rewrite app:ResNet50 resnet.keras --weights imagenet --recipe resnet
      graphwd rewrite model.keras model-wd.keras --policy decay.toml
      graphwd rewrite model.h5 model.h5 --force --recipe no-bias --l2 5e-5
      graphwd rewrite bert.keras bert-wd.keras --live --recipe bert
    """
    policy = _policy(policy_file, recipe, weight_decay, l2)
    live = _is_live(source, live, weights)
    way = _rewrite_live if live else _rewrite_file
    plan, proof = way(source, target, policy, weights, portable, force)
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
    source: str, target: str, policy: Policy, weights: str | None, portable: bool, force: bool
) -> tuple[Plan, str]:
    from graphwd import api, sources
    from graphwd.report import Progress

    sources.check_target(target, overwrite=force)
    with Progress("loading") as progress, contextlib.redirect_stdout(sys.stderr):
        model = _load(source, weights)
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
    source: str, target: str, policy: Policy, weights: str | None, portable: bool, force: bool
) -> tuple[Plan, str]:
    from graphwd import archive
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
        plan = archive.rewrite_file(source, target, policy, overwrite=force)
    return plan, "equal but for the planned edits: the config, and every stored byte"


@cli.command()
@click.argument("source", metavar="SRC", shell_complete=_complete_source)
@_policy_options
@_live_options
@_json_option
@_debug_option
def plan(
    source: str,
    policy_file: str | None,
    recipe: str | None,
    weight_decay: float | None,
    l2: float | None,
    live: bool,
    weights: str | None,
    as_json: bool,
) -> None:
    """Shows what a policy would do to SRC, and writes nothing.

    Slots whose paths differ in numbers only are one line, with * for the numbers. Then come the
    policy's rules, with what each decides on, and the roles. Parameters, and their share of all
    that can take a penalty, are known of loaded models only. What is dormant is frozen: Keras skips
    the penalty until the weights are trainable. What is carried is in no config of Keras's own: the
    file needs 'import graphwd'. What is unreached is a weight that no config reaches and no rule
    selects.

    Examples:
      graphwd plan model.keras --recipe mobilenet
      graphwd plan app:ResNet50 --policy decay.toml
      graphwd plan model.keras --recipe no-bias --json | jq '.edits[].path'
    """
    from graphwd.report import show_plan

    policy = _policy(policy_file, recipe, weight_decay, l2)
    made = _planned(source, policy, live, weights)
    _print_json(made.to_dict()) if as_json else show_plan(made)


@cli.command()
@click.argument("source", metavar="SRC", shell_complete=_complete_source)
@_live_options
@_json_option
@_debug_option
def inspect(source: str, live: bool, weights: str | None, as_json: bool) -> None:
    """Shows what is penalised now in SRC.

    Every slot is listed, so that its path, layer and role can be used in a policy; see 'graphwd
    plan --help' for the columns.

    Examples:
      graphwd inspect model.keras
      graphwd inspect app:MobileNet
      graphwd inspect model.keras --live --json
    """
    from graphwd.report import show_plan

    made = _planned(source, None, live, weights)
    _print_json(made.to_dict()) if as_json else show_plan(made)


def _planned(source: str, policy: Policy | None, live: bool, weights: str | None) -> Plan:
    from graphwd import archive
    from graphwd.report import Progress

    if not _is_live(source, live, weights):
        with Progress("reading"):
            if policy is None:
                return archive.inspect_file(source)
            return archive.plan_file(source, policy)
    from graphwd import api

    with Progress("loading") as progress, contextlib.redirect_stdout(sys.stderr):
        model = _load(source, weights)
        progress.step("looking")
        return api.inspect(model) if policy is None else api.plan(model, policy)


@cli.command()
@click.argument("source", metavar="SRC", shell_complete=_complete_source)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    metavar="FILE",
    required=True,
    help="Where to write the page.",
)
@_policy_options
@_live_options
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@_debug_option
def report(
    source: str,
    output: str,
    policy_file: str | None,
    recipe: str | None,
    weight_decay: float | None,
    l2: float | None,
    live: bool,
    weights: str | None,
    force: bool,
) -> None:
    """Draws SRC, and what a policy would do to it, on one HTML page.

    The page has the model's graph with each layer coloured by what it gets, charts, and the tables
    of 'graphwd plan'. It is one file and asks no network for anything. Without a policy it shows
    what is penalised now. The values of penalties are known of loaded models only.

    Examples:
      graphwd report model.keras -o now.html
      graphwd report model.keras --recipe resnet -o plan.html
      graphwd report app:MobileNet --recipe mobilenet -o mobilenet.html
    """
    policy: Policy | None = None
    if any(option is not None for option in (policy_file, recipe, weight_decay, l2)):
        policy = _policy(policy_file, recipe, weight_decay, l2)
    if os.path.isdir(output):
        raise GraphwdError(f"{output!r} can't be written: it is a directory.")
    if not force and os.path.lexists(output):
        raise GraphwdError(f"{output!r} exists; to replace it pass --force.")
    made = _planned(source, policy, live, weights)
    try:
        made.save_html(output)
    except OSError as error:  # it names the temporary file, which nobody has asked for
        raise GraphwdError(f"{output!r} can't be written: {error.strerror}.") from error
    from graphwd.tables import printable

    click.echo(f"{printable(output)}: {printable(made.title)}")


@cli.command()
@click.argument("original", metavar="A", shell_complete=_complete_source)
@click.argument("rewritten", metavar="B", shell_complete=_complete_source)
@_policy_options
@click.option("--live", is_flag=True, help="Load both files with Keras.")
@click.option("--outputs", is_flag=True, help="Also compare outputs (loads both files).")
@_json_option
@_debug_option
def verify(
    original: str,
    rewritten: str,
    policy_file: str | None,
    recipe: str | None,
    weight_decay: float | None,
    l2: float | None,
    live: bool,
    outputs: bool,
    as_json: bool,
) -> None:
    """Proves that B is A plus a policy's edits, or says what differs.

    Graph, configs and every stored array are compared. Without a policy any regularizers are
    accepted in B. The exit code is 1 when anything else differs.

    Examples:
      graphwd verify model.keras model-wd.keras
      graphwd verify model.keras model-wd.keras --recipe mobilenet
      graphwd verify model.keras model-wd.keras --outputs
    """
    from graphwd import api
    from graphwd.report import Progress
    from graphwd.sources import is_application

    policy: Policy | None = None
    if any(option is not None for option in (policy_file, recipe, weight_decay, l2)):
        policy = _policy(policy_file, recipe, weight_decay, l2)
    with Progress("comparing") as progress, contextlib.redirect_stdout(sys.stderr):
        models: list[Any] = [original, rewritten]
        if live or outputs or any(map(is_application, models)):
            progress.step("loading")
            models = [_load(source, None) for source in models]
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
@click.argument("name", required=False, callback=_check_recipe, shell_complete=_complete_recipe)
@_json_option
@_debug_option
def recipes(name: str | None, as_json: bool) -> None:
    """Lists the published recipes, or tells everything about one.

    A strength is a weight decay, as the papers and PyTorch mean it, or a factor of Keras's L2; a
    weight decay of X is an L2 factor of X/2.

    Examples:
      graphwd recipes
      graphwd recipes mobilenet
    """
    from graphwd import policy, regularizers
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
        gives = regularizers.describe(rule.regularizer)
        click.echo(f"{f'rule {number}':<{width}}{rule.describe()} -> {gives}")


def _policy(
    policy_file: str | None, recipe: str | None, weight_decay: float | None, l2: float | None
) -> Policy:
    if (policy_file is None) == (recipe is None):
        raise click.UsageError(
            "Give the policy as --policy FILE or as --recipe NAME"
            + (", not both." if recipe else "; 'graphwd recipes' lists the recipes."),
            click.get_current_context(),
        )
    from graphwd.policy import Policy

    if recipe is not None:
        return Policy.recipe(recipe, weight_decay=weight_decay, l2=l2)
    if weight_decay is not None or l2 is not None:
        raise click.UsageError(
            "--weight-decay and --l2 are for --recipe: a policy file has its own strengths.",
            click.get_current_context(),
        )
    assert policy_file is not None
    return Policy.load(policy_file)


def _is_live(source: str, live: bool, weights: str | None) -> bool:
    from graphwd.sources import is_application

    if is_application(source):
        return True
    if weights is not None:
        raise click.UsageError(
            f"--weights is for app:NAME; the file {source!r} has weights of its own.",
            click.get_current_context(),
        )
    return live


def _load(source: str, weights: str | None) -> Any:
    from graphwd import sources

    if sources.is_application(source):
        kind = "ImageNet" if weights else "random (--weights imagenet gives trained ones)"
        click.echo(f"graphwd: {source} has weights: {kind}.", err=True)
    return sources.load(source, weights)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def _size(count: int) -> str:
    if count < 1_000_000:
        return f"{count / 1e3:.1f} kB"
    return f"{count / 1e6:,.1f} MB"


def main() -> None:
    """The entry point of the command `graphwd`."""
    cli(prog_name="graphwd")
