"""The columns: each a question that is answered by trying it, on one way at a time.

Whether a penalty is there is seen in what one training step does to the weights. A twin, built
plainly, with the same weights and the same optimizer state, takes the same step on the same batch;
the way's weights must differ from the twin's by the decay of the kernels, and by nothing else.
"""

import json
import pathlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy

from benchmarks.works import models
from benchmarks.works.catalogue import TOO_MANY
from benchmarks.works.framework import keras
from benchmarks.works.ways import WAYS, Factors, Penalised, Way

RATE = 0.05
FACTOR = 0.02
STEPS = 99
LOSS = "categorical_crossentropy"
TOLERANCE = 0.05  # of the decay; what two ways of adding single precision up differ by is less
LEAST = 1e-5
_twins: dict[tuple[str, str], Any] = {}


@dataclass(frozen=True)
class Answer:
    """How much of a question a way fulfils.

    Attributes:
        right: The number of things that were right.
        wanted: The number of things that had to be.
        why: What was wrong.
    """

    right: int
    wanted: int
    why: str = ""


def answers(name: str) -> dict[str, Any]:
    """Asks everything of one way.

    Args:
        name: The way's.

    Returns:
        For each column how much was right, how much was wanted, and why not; and the lines.
    """
    way = WAYS[name]
    found: dict[str, Any] = {}
    for column, question in QUESTIONS.items():
        keras.utils.set_random_seed(1)
        try:
            answer = question(way)
        except Exception as error:  # noqa: BLE001 # that a way raises is its result
            lines = str(error).strip().splitlines() or [""]
            answer = Answer(0, 1, f"{type(error).__name__}: {lines[0][:160]}")
        found[column] = vars(answer)
    return {"answers": found, "lines": way.lines}


def first_step(way: Way, model: str = "mobilenet", factors: Factors | None = None) -> Answer:
    """Whether the first step of training decays the kernels, and nothing else."""
    factors = factors or {"*": FACTOR}
    penalised = way.apply(models.MODELS[model](), factors)
    return _decayed(way, penalised, model, factors)


def hundredth_step(way: Way) -> Answer:
    """Whether the hundredth step does."""
    penalised = way.apply(models.mobilenet(), {"*": FACTOR})
    penalised = _compiled(penalised, way, {"*": FACTOR})
    for _ in range(STEPS):
        _step(penalised, "mobilenet")
    return _decayed(way, penalised, "mobilenet", {"*": FACTOR})


def same_weights(way: Way) -> Answer:
    """Whether the result has the weights that the original had."""
    original = models.mobilenet()
    places, before = models.kernels(original), _values(original)
    after = _values(way.apply(original, {"*": FACTOR}))
    equal = [_equal(before[place], after[place]) for place in places]
    return Answer(sum(equal), len(equal), "" if all(equal) else "the weights are new, random ones")


def survives_keras(way: Way) -> Answer:
    """Whether a saved and loaded .keras file has the penalty."""
    return _survives(way, ".keras")


def survives_h5(way: Way) -> Answer:
    """Whether a saved and loaded .h5 file has the penalty."""
    return _survives(way, ".h5")


def _survives(way: Way, suffix: str) -> Answer:
    penalised = way.apply(models.mobilenet(), {"*": FACTOR})
    penalised = _compiled(penalised, way, {"*": FACTOR})  # the file has the optimizer, too
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"model{suffix}"
        penalised.save(path)
        loaded = keras.models.load_model(path, custom_objects={"Penalised": Penalised})
    if not way.decays_in_optimizer:  # Keras loads some optimizers for no variables at all
        loaded.compile(keras.optimizers.SGD(RATE), LOSS)
    return _decayed(way, loaded, "mobilenet", {"*": FACTOR})


def original_untouched(way: Way) -> Answer:
    """Whether the given model is what it was: after the edit, and after training the result."""
    original = models.choosable()
    before, config, losses = _values(original), _config(original), len(original.losses)
    penalised = way.apply(original, {"*": FACTOR})
    edited = _config(original) != config or len(original.losses) != losses
    _step(_compiled(penalised, way, {"*": FACTOR}), "choosable")
    trained = not all(map(_equal, before, _values(original)))
    why = ["the given model is edited"] * edited + ["the given model is trained"] * trained
    return Answer(2 - len(why), 2, " and ".join(why))


def nested_models(way: Way) -> Answer:
    """Whether kernels in a nested model decay."""
    return first_step(way, "nested")


def recurrent_kernels(way: Way) -> Answer:
    """Whether the kernels of an LSTM and of a Bidirectional one decay."""
    return first_step(way, "recurrent")


def composite_layers(way: Way) -> Answer:
    """Whether kernels inside attention and encoder layers decay."""
    return first_step(way, "transformer")


def choice_of_layers(way: Way) -> Answer:
    """Whether one layer can be left out, and whether one can have a strength of its own."""
    tried = {
        "a layer can't be left out": {"*": FACTOR, "head": 0.0},
        "a layer can't have a strength of its own": {"*": FACTOR, "head": 5 * FACTOR},
    }
    found = {}
    for why, factors in tried.items():
        answer = first_step(way, "choosable", factors)
        found[why] = answer.right == answer.wanted
    return Answer(sum(found.values()), 2, "; ".join(why for why, fine in found.items() if not fine))


def momentum_kept(way: Way) -> Answer:
    """Whether a model in training goes on with its momentum, and with the penalty."""
    model = models.choosable()
    model.compile(keras.optimizers.SGD(RATE, momentum=0.9), LOSS)
    for _ in range(5):
        _step(model, "choosable")
    momentum = _values(model.optimizer)
    penalised = way.apply(model, {"*": FACTOR})
    used = getattr(penalised, "optimizer", None)
    if way.decays_in_optimizer:
        used = way.optimizer(RATE, {"*": FACTOR})
    if used is None:
        return Answer(0, 1, "the result isn't compiled, and a new optimizer has no momentum")
    penalised.compile(used, LOSS)  # an edited model needs it, for its step is traced already
    kept = len(_values(used)) == len(momentum) and all(map(_equal, momentum, _values(used)))
    if not kept:
        return Answer(0, 1, "the optimizer is a new one, without momentum")
    answer = _decayed(way, penalised, "choosable", {"*": FACTOR})
    return Answer(int(answer.right == answer.wanted), 1, answer.why)


def _decayed(way: Way, penalised: Any, model: str, factors: Factors) -> Answer:
    """Compares one step of a model with one step of its twin without decay."""
    penalised = _compiled(penalised, way, factors)
    twin = _twin(penalised, model)
    start = _values(penalised)
    _step(penalised, model)
    _step(twin, model)
    missing, others = [], 0
    for variable, before, ours, theirs in zip(
        twin.weights, start, _values(penalised), _values(twin), strict=True
    ):
        name = getattr(variable, "path", variable.name).split(":")[0]
        moved = ours - theirs
        factor = factors.get(name.split("/")[0], factors["*"]) if models.is_kernel(name) else 0
        expected = -RATE * 2 * factor * before
        if not factor:
            others += bool(numpy.abs(moved).max() > LEAST)
        elif numpy.linalg.norm(moved - expected) > TOLERANCE * numpy.linalg.norm(expected):
            missing.append(name)
    wanted = len(models.kernels(twin))
    right = wanted - len(missing)
    why = f"without {', '.join(missing[:2])}" * bool(missing)
    if others:
        right = min(right, wanted - 1)
        why = f"{why}; {others} {TOO_MANY}".removeprefix("; ")
    return Answer(right, wanted, why)


def _twin(penalised: Any, model: str) -> Any:
    """A plain model with the same weights, and the same optimizer but for its decay."""
    config = penalised.optimizer.get_config()
    if config.get("weight_decay"):
        config["weight_decay"] = 0.0
    key = model, json.dumps(config, default=repr)
    if key not in _twins:  # each has to be traced, which is most of what trying a way costs
        _twins[key] = models.MODELS[model]()
        _twins[key].compile(type(penalised.optimizer).from_config(config), LOSS)
        _step(_twins[key], model)
    twin = _twins[key]
    for ours, theirs in zip(twin.weights, _values(penalised), strict=True):
        ours.assign(theirs)
    ours, theirs = _variables(twin.optimizer), _values(penalised.optimizer)
    if len(theirs) < len(ours):  # it isn't built yet
        theirs = [numpy.zeros(variable.shape) for variable in ours]
    for variable, value in zip(ours, theirs, strict=True):
        if "learning_rate" not in variable.name:
            variable.assign(value)
    return twin


def _compiled(model: Any, way: Way, factors: Factors) -> Any:
    if getattr(model, "optimizer", None) is None:
        model.compile(way.optimizer(RATE, factors), LOSS)
    return model


def _step(model: Any, name: str) -> None:
    model.train_on_batch(*models.batch(name))


def _variables(holder: Any) -> list[Any]:
    """A model's weights or an optimizer's variables; where legacy Keras has a function for them."""
    found = holder.weights if isinstance(holder, keras.Model) else holder.variables
    return list(found() if callable(found) else found)


def _values(holder: Any) -> list[Any]:
    return [numpy.array(variable) for variable in _variables(holder)]


def _equal(one: Any, other: Any) -> bool:
    return one.shape == other.shape and bool((one == other).all())


def _config(model: Any) -> str:
    return json.dumps(model.get_config(), sort_keys=True, default=repr)


QUESTIONS: dict[str, Callable[[Way], Answer]] = {
    "first_step": first_step,
    "hundredth_step": hundredth_step,
    "survives_keras": survives_keras,
    "survives_h5": survives_h5,
    "same_weights": same_weights,
    "original_untouched": original_untouched,
    "nested_models": nested_models,
    "recurrent_kernels": recurrent_kernels,
    "composite_layers": composite_layers,
    "choice_of_layers": choice_of_layers,
    "momentum_kept": momentum_kept,
}
