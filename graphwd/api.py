"""The public functions, and `rewrite_and_tell`, which also tells what was done."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from graphwd.graph import collector
from graphwd.plans.plan import Plan, refuse_carried, warn_of_mechanism
from graphwd.policy import regularizers
from graphwd.policy.policies import Policy

if TYPE_CHECKING:
    from graphwd.graph.equivalence import Report

Path: TypeAlias = str | os.PathLike[str]

_PATHS = (str, bytes, os.PathLike)


def weight_decay(decay: float) -> Any:
    """The Keras regularizer whose gradient is `decay * w`.

    Papers, PyTorch's SGD and TF-Slim call this factor the weight decay. Keras's `L2(a)` adds
    `a * sum(w ** 2)`, whose gradient is `2 * a * w`, so a weight decay is `L2(decay / 2)`.

    Args:
        decay: Float, the weight decay in the papers' unit.

    Returns:
        A `keras.regularizers.L2`.

    Example:

    ```python
    graphwd.weight_decay(5e-4)  # the same as keras.regularizers.L2(2.5e-4)
    ```
    """
    import keras

    return keras.regularizers.deserialize(regularizers.from_weight_decay(decay))


def rewrite(
    model: Any,
    policy: Any,
    *,
    verify: bool | Literal["outputs"] = True,
    portable: bool = False,
    in_place: bool = False,
) -> Any:
    """Returns a model like the given one, with the regularizers that a policy asks for.

    The result has the same graph, weights, outputs, names, dtypes, trainable flags, shared layers
    and seeds; if the original was compiled, it is compiled, with the optimizer's state. Its config
    has the regularizers, so it saves and reloads with them. The original is left as it was.

    Args:
        model: A `keras.Model` of any class: Functional, Sequential or subclassed.
        policy: A `Policy`, a `Rule`, a list of rules, a recipe's name, the path of a policy file, a
            dictionary or a list of them, or a bare regularizer, which means that penalty on all
            weights of two and more dimensions that are no bias.
        verify: Whether to prove the result equal to the original but for the policy's edits;
            `"outputs"` also compares outputs on generated inputs (in place they are computed by
            the same objects, so that there is nothing to compare).
        portable: Whether to refuse edits that stock Keras config can't express. A file with such
            edits needs `import graphwd` before it is loaded.
        in_place: Whether to edit the given model itself instead of a copy: no time, no memory,
            for models too large to have twice. An error leaves the model as it was. A model that
            was compiled has to be compiled again, for its training step is traced already.

    Returns:
        A new `keras.Model` of the same class; with `in_place=True` the given one.

    Raises:
        PolicyError: when the policy is not valid.
        UnreachableWeightError: with `portable=True`, when the policy wants a regularizer on
            weights that no config reaches.
        ModelError: when a layer keeps something of the model inside an object that Python can't
            copy (a generator, a running thread); the message names it.
        EquivalenceError: when the proof fails; no wrong model is returned.

    Example:

    ```python
    model = keras.applications.ResNet50(weights=None)
    model = graphwd.rewrite(model, graphwd.Rule(graphwd.weight_decay(1e-4), roles="kernel"))
    ```
    """
    accept = refuse_carried if portable else None
    return rewrite_and_tell(model, policy, accept, verify=verify, in_place=in_place)[0]


def rewrite_and_tell(
    model: Any,
    policy: Any,
    accept: Callable[[Plan], None] | None = None,
    *,
    verify: bool | Literal["outputs"] = True,
    in_place: bool = False,
) -> tuple[Any, Plan, Report | None]:
    """Rewrites a model, for whoever shows what was done: from one survey of it.

    Args:
        model: A `keras.Model`.
        policy: As for `rewrite`.
        accept: Called with the plan before anything else is done, to refuse it with an error.
        verify: As for `rewrite`.
        in_place: As for `rewrite`.

    Returns:
        The model, the plan that it has, and the proof.
    """
    from graphwd.live import _keras, checks, editing, starting
    from graphwd.live.copying.copier import copied
    from graphwd.live.penalties import planned
    from graphwd.live.proving.verification import prove_copy, prove_edits
    from graphwd.live.survey import of_copy, survey

    checks.refuse_other_than_model(model, "rewrite")
    report = None
    with collector.paused(), _keras.unchanged_globals():
        found = survey(model, calls=not in_place)
        decided = planned(found, Policy.coerce(policy))
        warn_of_mechanism(decided)
        if accept is not None:
            accept(decided)
        checks.check(found, decided)
        if not in_place:
            checks.warn_of_globals(model)
        starts = starting.before(found)
        copy, copies = (model, {}) if in_place else copied(model)
        target = found if in_place else of_copy(found, copy, copies)
        with editing.edited(target, decided) as units:
            if verify and not in_place:
                report = prove_copy(found, decided, copy, copies, outputs=verify == "outputs")
            elif verify:
                report = prove_edits(found, units, decided)
            starting.keep(found, decided, starts, target.model)
    return target.model, decided, report


def plan(model: Any, policy: Any) -> Plan:
    """Says what a policy does to a model, without doing it.

    Args:
        model: A live `keras.Model`, or the path of a saved one, which is read without Keras.
        policy: As for `rewrite`.

    Returns:
        A `Plan`: iterate for its edits, print for a table, `to_dict()` for plain data.

    Example:

    ```python
    for edit in graphwd.plan(model, keras.regularizers.L2(1e-4)):
        print(edit.path, edit.before, edit.after)
    ```
    """
    if isinstance(model, _PATHS):
        from graphwd.saved import rewriting

        return rewriting.plan_file(model, Policy.coerce(policy))
    from graphwd.live import checks
    from graphwd.live.penalties import planned
    from graphwd.live.survey import survey

    checks.refuse_other_than_model(model, "plan")
    return planned(survey(model), Policy.coerce(policy))


def inspect(model: Any) -> Plan:
    """Says what is penalised now, and what the optimizer decays beside.

    For a compiled model a table says of every weight by what coefficient the optimizer decays it,
    and why not where it doesn't: in a step it subtracts `learning_rate * decay * w`. Notes name
    what may surprise: weights that are decayed twice, biases and normalization that decay,
    exclusions that match nothing or were replaced, penalties that an adaptive optimizer divides,
    and training steps that leave the penalties out.

    Args:
        model: A live `keras.Model`, or the path of a saved one, for which it says what the
            optimizer does once the file is loaded.

    Returns:
        A `Plan` without edits whose tables list what every slot holds and what decays it; the
        latter is under `decays` in `to_dict()`.

    Example:

    ```python
    print(graphwd.inspect(model))
    graphwd.inspect("model.keras").to_dict()["decays"]
    ```
    """
    if isinstance(model, _PATHS):
        from graphwd.saved import rewriting

        return rewriting.inspect_file(model)
    from graphwd.live import checks
    from graphwd.live.penalties import planned
    from graphwd.live.survey import survey
    from graphwd.training import decaying

    checks.refuse_other_than_model(model, "inspect")
    found = survey(model)
    return planned(found, None, decaying.decays(found))


def verify(
    original: Any,
    rewritten: Any,
    policy: Any = None,
    *,
    outputs: bool = False,
) -> Report:
    """Proves that a model is another one plus the edits of a policy, or says what differs.

    Compared are the graph (with networkx, also when the layers are named differently), the order
    of inputs and outputs, sharing, call arguments, every layer's config and public attributes,
    every variable's bits, trainable flags, which weights the optimizers decay, and every
    regularizer both in the config and on the variable; and that the two share no variable, layer,
    optimizer or tracked container.

    Args:
        original: A live `keras.Model`, or the path of a saved one.
        rewritten: The same, also of the other kind: a file is then loaded with Keras.
        policy: As for `rewrite`. With `None`, any regularizers are accepted in the rewritten
            model, as long as its variables have the ones that its config says.
        outputs: Whether to compare outputs on generated inputs, too (live models only).

    Returns:
        A `Report` with `ok` and `problems`.
    """
    chosen = None if policy is None else Policy.coerce(policy)
    files = [isinstance(m, _PATHS) for m in (original, rewritten)]
    if all(files):
        from graphwd.saved import rewriting

        return rewriting.verify_files(original, rewritten, chosen)
    if any(files):
        import keras

        original, rewritten = (
            keras.saving.load_model(m) if is_file else m
            for m, is_file in zip((original, rewritten), files, strict=True)
        )
    from graphwd.live import checks
    from graphwd.live.proving import verification

    for model in (original, rewritten):
        checks.refuse_other_than_model(model, "verify")
    return verification.verify_models(
        original, rewritten, chosen, outputs=outputs, unsaved=not any(files)
    )


def rewrite_file(
    source: Path, target: Path, policy: Any, *, overwrite: bool = False, verify: bool = True
) -> Plan:
    """Rewrites a saved model without loading it: no Keras, no weights read, at the speed of a copy.

    Args:
        source: A `.keras` or a whole-model `.h5` file, or the folder of a preset or of an unzipped
            model.
        target: Where to write; the file is either complete or what it was before.
        policy: As for `rewrite`.
        overwrite: Whether an existing target may be replaced; the target may be the source then.
        verify: Whether to prove what was written before it takes the target's place.

    Returns:
        The `Plan` that was carried out.

    Raises:
        ArchiveError: when a file can't be read or written.
        PolicyError: when the policy is not valid.
    """
    from graphwd.saved import rewriting

    carried_out = rewriting.rewrite_file(
        source, target, Policy.coerce(policy), overwrite=overwrite, verify=verify
    )
    warn_of_mechanism(carried_out)
    return carried_out
