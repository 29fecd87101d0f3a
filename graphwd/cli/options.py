"""Options that several commands share: which files, which policy, and how a model is loaded."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from graphwd.cli.program import say, unknown

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from graphwd.policy.policies import Policy

_Function = TypeVar("_Function", bound=Callable[..., Any])


def wrong_usage(message: str) -> click.UsageError:
    """An error that ends in where the help of the command is."""
    return click.UsageError(message, click.get_current_context())


class FileName(click.Path):
    """The name of a file, and not `-`: files are read back and forth, and appear when complete."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuses `-`."""
        if value == "-":
            raise wrong_usage(
                "'-' is no file: graphwd neither reads standard input nor writes models to "
                "standard output; name a file."
            )
        return super().convert(value, param, ctx)


class ModelName(FileName):
    """A saved model, or `app:NAME`."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Completes the names of architectures, too."""
        from click.shell_completion import CompletionItem

        from graphwd.cli import models

        if not incomplete or not models.APPLICATION.startswith(incomplete[:4]):
            return super().shell_complete(ctx, param, incomplete)
        names = (models.APPLICATION + name for name in models.architectures())
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class RecipeName(click.types.StringParamType):
    """The name of a published recipe."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuses the name of no recipe."""
        from graphwd.policy.policies import recipes

        known = [recipe.name for recipe in recipes()]
        if value not in known:
            raise wrong_usage(unknown("There is no recipe", value, known, "the recipes are"))
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Completes it."""
        from click.shell_completion import CompletionItem

        from graphwd.policy.policies import recipes

        found = (recipe for recipe in recipes() if recipe.name.startswith(incomplete))
        return [CompletionItem(recipe.name, help=recipe.title) for recipe in found]


def single_option(*names: str, **settings: Any) -> Callable[[_Function], _Function]:
    """An option that can't be given twice: of two policies one would be left out silently."""

    def once(context: click.Context, parameter: click.Parameter, values: tuple[Any, ...]) -> Any:
        if len(values) > 1:
            raise click.UsageError(f"{parameter.opts[0]} was given twice; give it once.", context)
        return values[0] if values else None

    return click.option(*names, multiple=True, callback=once, **settings)


def _gathered(
    name: str, kind: type, *options: Callable[[Any], Any]
) -> Callable[[_Function], _Function]:
    """Adds options to a command, which gets them as one argument: a dataclass with their names."""
    fields = [field.name for field in dataclasses.fields(kind)]

    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def command(*args: Any, **values: Any) -> Any:
            own = {field: values.pop(field) for field in fields}
            return function(*args, **{name: kind(**own)}, **values)

        return functools.reduce(lambda made, option: option(made), reversed(options), command)

    return decorate


@dataclass(frozen=True)
class PolicyChoice:
    """Which policy: a file, a recipe with its strength, or a strength and what it is for."""

    policy_file: str | None
    recipe: str | None
    weight_decay: float | None
    l2: float | None
    ndim: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    @property
    def given(self) -> bool:
        """Whether anything was chosen."""
        return any(value not in (None, ()) for value in vars(self).values())

    def policy(self) -> Policy:
        """The policy; refuses none, and two."""
        from graphwd.policy.policies import Policy, recipes

        units = ("weight_decay", "l2")
        strengths = {unit: getattr(self, unit) for unit in units if getattr(self, unit) is not None}
        if len(strengths) > 1:
            raise wrong_usage(
                "Give --weight-decay or --l2, not both: a weight decay of X is an L2 of X/2."
            )
        file, recipe = self.policy_file, self.recipe
        if file is not None and recipe is not None:
            raise wrong_usage("Give the policy as --policy FILE or as --recipe NAME, not both.")
        selectors = {key: getattr(self, key) for key in _SELECTORS if getattr(self, key)}
        if file is None and recipe is None and strengths:
            return _policy_of_strength({**strengths, **selectors}, bool(selectors))
        if selectors:
            name = next(iter(selectors))
            raise wrong_usage(
                f"--{name} selects weights for a strength: give --weight-decay or --l2 with it."
                if file is None and recipe is None
                else f"--{name} is for --weight-decay or --l2 alone: policy files and recipes have "
                "rules of their own."
            )
        known = [one.name for one in recipes()]
        if file in known:
            recipe = file
        elif file is not None and not os.path.splitext(file)[1] and not os.path.exists(file):
            no_such = unknown("There is no policy or recipe", file, known, "the recipes are")
            raise wrong_usage(no_such)
        if recipe is not None:
            return Policy.recipe(recipe, **strengths)
        if file is None:
            raise wrong_usage(
                "Give --policy FILE, --recipe NAME ('graphwd recipes' lists them), or "
                "--weight-decay X for all matrices."
            )
        if strengths:
            raise wrong_usage(
                "--weight-decay and --l2 are for --recipe: a policy file has its own strengths."
            )
        return Policy.load(file)


def _policy_of_strength(entry: dict[str, Any], selects: bool) -> Policy:
    """The policy of a strength and its selectors; without any, that of a bare regularizer."""
    from graphwd.policy.policies import Policy, Rule, bare

    rule = Rule.from_entry(entry, 1)
    return Policy([rule if selects else bare(rule.regularizer)])


@dataclass(frozen=True)
class Loading:
    """How a model is loaded: whether with Keras, with which weights, after which imports."""

    live: bool
    weights: str | None
    modules: tuple[str, ...]

    def is_live(self, *sources: str) -> bool:
        """Whether any of some sources is loaded with Keras; refuses options that say nothing."""
        from graphwd.cli import models

        applications = list(filter(models.is_application, sources))
        for source in applications:
            models.check_application(source)
        if self.weights is not None and not applications:
            raise wrong_usage(
                f"--weights is for app:NAME; the file {sources[0]!r} has weights of its own."
            )
        if self.modules and not (self.live or applications):
            raise wrong_usage(
                "--import is for --live: a file is read without the classes that it names."
            )
        return self.live or bool(applications)

    def load(self, source: str) -> Any:
        """Loads a model, after the modules that its classes need."""
        from graphwd.cli import models

        models.import_modules(self.modules)
        if models.is_application(source):
            kind = "ImageNet" if self.weights else "random (--weights imagenet gives trained ones)"
            say(f"{source} has weights: {kind}.")
        return models.load(source, self.weights)


_SELECTORS = {
    "ndim": ("N", "With a strength alone: weights of so many dimensions, as 4 or '>=2'."),
    "roles": ("GLOB", "With a strength alone: weights of a role, as kernel or '!*bias*'."),
    "layers": ("GLOB", "With a strength alone: weights of a class of layers."),
    "paths": ("GLOB", "With a strength alone: weights by path. May be repeated, as the others."),
}
"""Options that select weights for a strength that comes without a policy or a recipe."""

policy_options = _gathered(
    "choice",
    PolicyChoice,
    single_option(
        "--policy",
        "policy_file",
        type=FileName(),
        metavar="FILE",
        help="A policy file, .toml or .json, or a recipe's name.",
    ),
    single_option(
        "--recipe",
        type=RecipeName(),
        metavar="NAME",
        help="A published recipe; 'graphwd recipes' lists them.",
    ),
    single_option(
        "--weight-decay",
        type=float,
        metavar="X",
        help="Strength, or that of --recipe, in the papers' unit: the same as --l2 X/2.",
    ),
    single_option(
        "--l2", type=float, metavar="X", help="Strength, or that of --recipe: a factor of L2."
    ),
    *(
        click.option(f"--{key}", multiple=True, metavar=metavar, help=text)
        for key, (metavar, text) in _SELECTORS.items()
    ),
)
live_options = _gathered(
    "loading",
    Loading,
    click.option(
        "--live",
        is_flag=True,
        help="Load the file with Keras. Reaches weights inside composite layers.",
    ),
    click.option(
        "--weights",
        type=click.Choice(["imagenet"]),
        help="For app:NAME: download trained weights; without it they are random.",
    ),
    click.option(
        "--import",
        "modules",
        multiple=True,
        metavar="MODULE",
        help="With --live: import MODULE first, for classes of your own; may be repeated.",
    ),
)
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
