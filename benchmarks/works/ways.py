"""Every way to give a built model weight decay, each as a user would write it.

A way takes a model and `factors`: the factor of the L2 penalty for each layer by its name, and
for all others under `"*"`. The task is to penalise every kernel, and no bias or normalization.
The lines of a way are counted from its source here, without the line of its name.
"""

import ast
import inspect
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.works.framework import keras

Factors = dict[str, float]
WEIGHTS = ("kernel", "depthwise_kernel", "recurrent_kernel")
KERNELS = ["kernel", "depthwise", "recurrent"]
ARGUMENTS = ("kernel_regularizer", "depthwise_regularizer", "recurrent_regularizer")


def add_loss(model: Any, factors: Factors) -> Any:
    for layer in model.layers:
        for name in WEIGHTS:
            if hasattr(layer, name):
                penalty = keras.regularizers.L2(factors.get(layer.name, factors["*"]))
                layer.add_loss(penalty(getattr(layer, name)))
    return model


def add_loss_lambda(model: Any, factors: Factors) -> Any:
    for layer in model.layers:
        for name in WEIGHTS:
            if hasattr(layer, name):
                penalty = keras.regularizers.L2(factors.get(layer.name, factors["*"]))
                weight = getattr(layer, name)
                layer.add_loss(lambda penalty=penalty, weight=weight: penalty(weight))
    return model


@keras.saving.register_keras_serializable("benchmarks")
class Penalised(keras.Model):
    """A model around another that adds the penalties as it is called."""

    def __init__(self, model: Any, factors: Factors, **options: Any) -> None:
        super().__init__(**options)
        self.model = model
        self.factors = factors

    def call(self, inputs: Any, training: Any = None) -> Any:
        for layer in self.model.layers:
            penalty = keras.regularizers.L2(self.factors.get(layer.name, self.factors["*"]))
            for weight in layer.trainable_weights:
                if weight.name.split("/")[-1].split(":")[0].endswith("kernel"):
                    self.add_loss(penalty(weight))
        return self.model(inputs, training=training)

    def get_config(self) -> Any:
        model = keras.saving.serialize_keras_object(self.model)
        return {"model": model, "factors": dict(self.factors)}

    @classmethod
    def from_config(cls, config: Any) -> Any:
        return cls(keras.saving.deserialize_keras_object(config["model"]), config["factors"])


def add_loss_in_call(model: Any, factors: Factors) -> Any:
    penalised = Penalised(model, factors)
    penalised.build(model.input_shape)
    return penalised


def set_attribute(model: Any, factors: Factors) -> Any:
    for layer in model.layers:
        for name in ARGUMENTS:
            if hasattr(layer, name):
                penalty = keras.regularizers.L2(factors.get(layer.name, factors["*"]))
                setattr(layer, name, penalty)
    return model


def set_attribute_and_variable(model: Any, factors: Factors) -> Any:
    for layer in model.layers:
        penalty = keras.regularizers.L2(factors.get(layer.name, factors["*"]))
        for name in ARGUMENTS:
            if hasattr(layer, name):
                setattr(layer, name, penalty)
        for weight in layer.trainable_weights:
            if weight.name.endswith("kernel"):
                weight.regularizer = penalty
    return model


def from_json(model: Any, factors: Factors) -> Any:
    for layer in model.layers:
        for name in ARGUMENTS:
            if hasattr(layer, name):
                penalty = keras.regularizers.L2(factors.get(layer.name, factors["*"]))
                setattr(layer, name, penalty)
    copy = keras.models.model_from_json(model.to_json())
    copy.set_weights(model.get_weights())
    return copy


def clone(model: Any, factors: Factors) -> Any:
    def rebuild(layer: Any) -> Any:
        config = layer.get_config()
        for name in ARGUMENTS:
            if name in config:
                config[name] = keras.regularizers.L2(factors.get(layer.name, factors["*"]))
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=rebuild, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


def helper(model: Any, factors: Factors) -> Any:
    from keras_cv_attention_models.model_surgery import add_l2_regularizer_2_model

    return add_l2_regularizer_2_model(model, 2 * factors["*"])


def optimizer(model: Any, factors: Factors) -> Any:
    return model


def sgd_decay(rate: float, factors: Factors) -> Any:
    decaying = keras.optimizers.SGD(rate, weight_decay=2 * factors["*"])
    without = [name for name, factor in factors.items() if not factor]
    decaying.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", *without])
    return decaying


def adamw_decay(rate: float, factors: Factors) -> Any:
    decaying = keras.optimizers.AdamW(rate, weight_decay=2 * factors["*"])
    without = [name for name, factor in factors.items() if not factor]
    decaying.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", *without])
    return decaying


def graphwd_live(model: Any, factors: Factors) -> Any:
    import graphwd

    rules = [
        graphwd.Rule(keras.regularizers.L2(factor), roles=KERNELS, paths=f"{name}/*")
        for name, factor in factors.items()
    ]
    return graphwd.rewrite(model, rules)


def graphwd_in_place(model: Any, factors: Factors) -> Any:
    import graphwd

    rules = [
        graphwd.Rule(keras.regularizers.L2(factor), roles=KERNELS, paths=f"{name}/*")
        for name, factor in factors.items()
    ]
    return graphwd.rewrite(model, rules, in_place=True)


def graphwd_file(model: Any, factors: Factors) -> Any:
    import graphwd

    rules = [
        graphwd.Rule(keras.regularizers.L2(factor), roles=KERNELS, paths=f"{name}/*")
        for name, factor in factors.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/source.keras", f"{folder}/target.keras"
        model.save(source)
        graphwd.rewrite_file(source, target, rules)
        return keras.saving.load_model(target)


def _sgd(rate: float, factors: Factors) -> Any:
    return keras.optimizers.SGD(rate)


@dataclass(frozen=True)
class Way:
    """One way.

    Attributes:
        apply: Takes a model and factors, returns the model to train.
        optimizer: Makes the optimizer to train with.
        sources: What a user has to write, where that is not `apply`.
    """

    apply: Callable[[Any, Factors], Any]
    optimizer: Callable[[float, Factors], Any] = _sgd
    sources: tuple[Any, ...] = ()

    @property
    def decays_in_optimizer(self) -> bool:
        """Whether the way is an optimizer, and the model stays as it is."""
        return self.optimizer is not _sgd

    @property
    def lines(self) -> int:
        """The lines of user code: statements, one a line, without imports."""
        return sum(_statements(source) for source in self.sources or (self.apply,))


def _statements(source: Any) -> int:
    tree = ast.parse(textwrap.dedent(inspect.getsource(source))).body[0]
    body = [tree] if isinstance(tree, ast.ClassDef) else tree.body
    kept = [node for node in body if not isinstance(node, (ast.Import, ast.ImportFrom))]
    text = "\n".join(ast.unparse(node) for node in kept)
    return sum(bool(line.strip()) for line in text.splitlines())


WAYS = {
    "add_loss": Way(add_loss),
    "add_loss_lambda": Way(add_loss_lambda),
    "legacy_add_loss": Way(add_loss),
    "legacy_add_loss_lambda": Way(add_loss_lambda),
    "add_loss_in_call": Way(add_loss_in_call, sources=(Penalised, add_loss_in_call)),
    "set_attribute": Way(set_attribute),
    "set_attribute_and_variable": Way(set_attribute_and_variable),
    "from_json": Way(from_json),
    "clone": Way(clone),
    "helper": Way(helper),
    "sgd_decay": Way(optimizer, sgd_decay, (sgd_decay,)),
    "adamw_decay": Way(optimizer, adamw_decay, (adamw_decay,)),
    "graphwd_live": Way(graphwd_live),
    "graphwd_in_place": Way(graphwd_in_place),
    "graphwd_file": Way(graphwd_file),
}
