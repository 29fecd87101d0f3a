"""Options that several commands share: which policy, and how a model is loaded."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from graphwd.cli.shell import unknown
from graphwd.errors import GraphwdError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from graphwd.policy.policies import Policy

_SELECTORS = {
    "ndim": ("N", "With a strength alone: weights of so many dimensions, as 4 or '>=2'."),
    "roles": ("GLOB", "With a strength alone: weights of a role, as kernel or '!*bias*'."),
    "layers": ("GLOB", "With a strength alone: weights of a class of layers."),
    "paths": ("GLOB", "With a strength alone: weights by path. May be repeated, as the others."),
}
"""Options that select weights for a strength that comes without a policy or a recipe."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class PolicyChoice:
    """Which policy: a file, a recipe with its strength, or a strength and what it is for.

    Attributes:
        policy_file: A policy file's path, or a recipe's name, or `None`.
        recipe: A recipe's name, or `None`.
        weight_decay: The strength in the papers' unit, or `None`.
        l2: The strength as a factor of L2, or `None`.
        selectors: What the strength is for, as for `graphwd.Rule`.
    """

    policy_file: str | None
    recipe: str | None
    weight_decay: float | None
    l2: float | None
    selectors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def given(self) -> bool:
        """Whether anything was chosen."""
        return bool(self.selectors) or any(
            option is not None
            for option in (self.policy_file, self.recipe, self.weight_decay, self.l2)
        )

    def policy(self) -> Policy:
        """The policy.

        Returns:
            A `Policy`.

        Raises:
            UsageError: when it is none or two.
            PolicyError: when it is not valid.
        """
        strength = self.weight_decay is not None or self.l2 is not None
        if self.policy_file is None and self.recipe is None and strength:
            return self._rule()
        if self.selectors:
            raise click.UsageError(
                f"--{next(iter(self.selectors))} is for --weight-decay or --l2 alone: policy files "
                "and recipes have rules of their own.",
                click.get_current_context(),
            )
        if (self.policy_file is None) == (self.recipe is None):
            raise click.UsageError(
                "Give the policy as --policy FILE or as --recipe NAME"
                + (", not both." if self.recipe else "; 'graphwd recipes' lists the recipes."),
                click.get_current_context(),
            )
        from graphwd.policy.policies import Policy, recipes

        recipe = self.recipe
        if self.policy_file in {known.name for known in recipes()}:
            recipe = self.policy_file
        if recipe is not None:
            return Policy.recipe(recipe, weight_decay=self.weight_decay, l2=self.l2)
        if self.weight_decay is not None or self.l2 is not None:
            raise click.UsageError(
                "--weight-decay and --l2 are for --recipe: a policy file has its own strengths.",
                click.get_current_context(),
            )
        assert self.policy_file is not None
        return Policy.load(self.policy_file)

    def _rule(self) -> Policy:
        """The policy of a strength and its selectors; without any, that of a bare regularizer."""
        from graphwd.policy.policies import Policy, Rule, bare

        if self.weight_decay is not None and self.l2 is not None:
            raise click.UsageError(
                "Give --weight-decay or --l2, not both: a weight decay of X is an L2 of X/2.",
                click.get_current_context(),
            )
        unit = "l2" if self.weight_decay is None else "weight_decay"
        entry = {unit: getattr(self, unit), **self.selectors}
        rule = Rule.from_entry(entry, 1)
        return Policy([rule if self.selectors else bare(rule.regularizer)])


@dataclass(frozen=True)
class Loading:
    """How a model is loaded.

    Attributes:
        live: Whether a file is loaded with Keras.
        weights: The weights of an architecture, or `None` for random ones.
        modules: What is imported before.
    """

    live: bool
    weights: str | None
    modules: tuple[str, ...]

    def is_live(self, *sources: str) -> bool:
        """Whether sources are loaded with Keras.

        Args:
            *sources: Paths, or `app:NAME`.

        Returns:
            Whether any of them needs it.

        Raises:
            UsageError: when an option says nothing about them.
        """
        from graphwd.cli.sources import check_application, is_application

        for source in filter(is_application, sources):
            check_application(source)
        applications = any(map(is_application, sources))
        if self.weights is not None and not applications:
            raise click.UsageError(
                f"--weights is for app:NAME; the file {sources[0]!r} has weights of its own.",
                click.get_current_context(),
            )
        if self.modules and not (self.live or applications):
            raise click.UsageError(
                "--import is for --live: a file is read without the classes that it names.",
                click.get_current_context(),
            )
        return self.live or applications

    def load(self, source: str) -> Any:
        """Loads a model.

        Args:
            source: A path, or `app:NAME`.

        Returns:
            A `keras.Model`.

        Raises:
            GraphwdError: when it can't be loaded, or a module can't be imported.
        """
        from graphwd.cli import sources

        if self.modules:
            sources.import_keras()  # first, so that what it says at its start is silenced
        for module in self.modules:
            _import(module)
        if sources.is_application(source):
            kind = "ImageNet" if self.weights else "random (--weights imagenet gives trained ones)"
            click.echo(f"graphwd: {source} has weights: {kind}.", err=True)
        return sources.load(source, self.weights)


def _import(name: str) -> None:
    """Imports a module of the user's, from the current folder or wherever Python finds it."""
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        importlib.import_module(name.removesuffix(".py") if os.sep not in name else name)
    except Exception as error:
        reason = " ".join(str(error).split()) or "no reason given"
        raise GraphwdError(
            f"The module {name!r} can't be imported ({type(error).__name__}: {reason}); --import "
            "takes a module's name, as in 'import my_layers', of the current folder or installed."
        ) from error


def complete_source(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Completes a saved model's name, or that of an architecture.

    Args:
        context: Of the command.
        parameter: Which one is completed.
        incomplete: What was typed.

    Returns:
        A list of completions.
    """
    from click.shell_completion import CompletionItem

    from graphwd.cli import sources

    if not incomplete or not sources.APPLICATION.startswith(incomplete[:4]):
        return [CompletionItem(incomplete, type="file")]
    names = (sources.APPLICATION + name for name in sources.architectures())
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def complete_recipe(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Completes a recipe's name.

    Args:
        context: Of the command.
        parameter: Which one is completed.
        incomplete: What was typed.

    Returns:
        A list of completions.
    """
    from click.shell_completion import CompletionItem

    from graphwd.policy.policies import recipes

    return [
        CompletionItem(recipe.name, help=recipe.title)
        for recipe in recipes()
        if recipe.name.startswith(incomplete)
    ]


def once(context: click.Context, parameter: click.Parameter, values: tuple[Any, ...]) -> Any:
    """Refuses an option that is given twice: of two policies one would be left out silently.

    Args:
        context: Of the command.
        parameter: Which one is checked.
        values: What was given, each time.

    Returns:
        The one value, or `None`.

    Raises:
        UsageError: when there are several.
    """
    if len(values) > 1:
        raise click.UsageError(f"{parameter.opts[0]} was given twice; give it once.", context)
    return values[0] if values else None


def check_once_recipe(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> str | None:
    """Refuses a second recipe, and the name of none."""
    return check_recipe(context, parameter, once(context, parameter, values))


def named_file(
    context: click.Context, parameter: click.Parameter, value: str | tuple[str, ...] | None
) -> Any:
    """Refuses `-`: a file is read back and forth, and gets its name when it is complete.

    Args:
        context: Of the command.
        parameter: Which one is checked.
        value: What was given.

    Returns:
        The same.

    Raises:
        UsageError: for `-`.
    """
    if value == "-" or (isinstance(value, tuple) and "-" in value):
        raise click.UsageError(
            "'-' is no file: graphwd neither reads standard input nor writes models to standard "
            "output; name a file.",
            context,
        )
    return (
        once(context, parameter, value)
        if isinstance(value, tuple) and _is_option(parameter)
        else value
    )


def _is_option(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Option)


def check_recipe(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | None:
    """Refuses the name of no recipe.

    Args:
        context: Of the command.
        parameter: Which one is checked.
        value: What was given.

    Returns:
        The same.

    Raises:
        UsageError: with the nearest name.
    """
    from graphwd.policy.policies import recipes

    known = [recipe.name for recipe in recipes()]
    if value is not None and value not in known:
        raise click.UsageError(unknown("recipe", value, known), context)
    return value


def policy_options(function: _Function) -> _Function:
    """Adds the options that say which policy; the function gets them as `choice`."""

    @functools.wraps(function)
    def command(
        *args: Any,
        policy_file: str | None,
        recipe: str | None,
        weight_decay: float | None,
        l2: float | None,
        **more: Any,
    ) -> Any:
        selectors = {key: given for key in _SELECTORS if (given := more.pop(key))}
        choice = PolicyChoice(policy_file, recipe, weight_decay, l2, selectors)
        return function(*args, choice=choice, **more)

    made: Any = command
    for key, (metavar, text) in reversed(_SELECTORS.items()):
        made = click.option(f"--{key}", multiple=True, metavar=metavar, help=text)(made)
    for option in (
        click.option(
            "--l2",
            type=float,
            multiple=True,
            callback=once,
            metavar="X",
            help="Strength, or that of --recipe: a factor of L2.",
        ),
        click.option(
            "--weight-decay",
            type=float,
            multiple=True,
            callback=once,
            metavar="X",
            help="Strength, or that of --recipe, in the papers' unit: the same as --l2 X/2.",
        ),
        click.option(
            "--recipe",
            multiple=True,
            callback=check_once_recipe,
            shell_complete=complete_recipe,
            metavar="NAME",
            help="A published recipe; 'graphwd recipes' lists them.",
        ),
        click.option(
            "--policy",
            "policy_file",
            type=click.Path(),
            multiple=True,
            callback=named_file,
            metavar="FILE",
            help="A policy file, .toml or .json, or a recipe's name.",
        ),
    ):
        made = option(made)
    return made  # type: ignore[no-any-return] # click has no type for what it decorates


def live_options(function: _Function) -> _Function:
    """Adds the options that say how a model is loaded; the function gets them as `loading`."""

    @functools.wraps(function)
    def command(
        *args: Any, live: bool, weights: str | None, modules: tuple[str, ...], **more: Any
    ) -> Any:
        return function(*args, loading=Loading(live, weights, modules), **more)

    made: Any = command
    for option in (
        click.option(
            "--import",
            "modules",
            multiple=True,
            metavar="MODULE",
            help="With --live: import MODULE first, for classes of your own; may be repeated.",
        ),
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
        made = option(made)
    return made  # type: ignore[no-any-return] # click has no type for what it decorates


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
strict_option = click.option(
    "--strict", is_flag=True, help="Exit with 1 when a rule matches nothing, or nothing is edited."
)
debug_option = click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    help="Show tracebacks, and the warnings of other packages.",
)
