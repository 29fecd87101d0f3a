"""Layers of every kind of class, which carry penalties and are to be kept."""

import abc

import keras

import graphwd
from graphwd.live.carrying import carrier
from tests.support.layers import Gate

POLICY = graphwd.Rule(keras.regularizers.L2(1e-2))
registered = keras.saving.register_keras_serializable(package="keeping")
TAGGED = {}


class Tagging(Gate):
    """A base that lists its subclasses by a keyword that they must give, each only once."""

    def __init_subclass__(cls, *, tag, **kwargs):
        super().__init_subclass__(**kwargs)
        if tag in TAGGED:
            raise ValueError(f"{tag} is taken")
        TAGGED[tag] = cls


@registered
class Tagged(Tagging, tag="tagged"):
    pass


class Listing(type):
    """A metaclass that lists its classes by name, and refuses one of the same name."""

    listed: dict = {}  # noqa: RUF012 # a class attribute on purpose

    def __new__(mcs, name, bases, namespace):
        if name in mcs.listed:
            raise ValueError(f"{name} is taken")
        mcs.listed[name] = super().__new__(mcs, name, bases, namespace)
        return mcs.listed[name]


@registered
class Listed(Gate, metaclass=Listing):
    pass


@registered
class Abstract(Gate, abc.ABC):
    pass


@registered
class Slotted(Gate):
    __slots__ = ("first", "second")


@registered
class Final(Gate):
    """A class that is not to be subclassed, and asks for that wherever it can."""

    def check(self):
        if type(self) is not Final:
            raise TypeError(f"{type(self)} is not Final")

    def __init__(self, *args, **kwargs):
        self.check()
        super().__init__(*args, **kwargs)

    def build(self, input_shape):
        self.check()
        super().build(input_shape)

    def call(self, inputs):
        self.check()
        return super().call(inputs)

    def compute_output_shape(self, input_shape):
        self.check()
        return (*input_shape[:-1], self.units)

    def get_config(self):
        self.check()
        return super().get_config()

    def get_build_config(self):
        self.check()
        return super().get_build_config()

    def build_from_config(self, config):
        self.check()
        super().build_from_config(config)

    def save_own_variables(self, store):
        self.check()
        super().save_own_variables(store)

    def load_own_variables(self, store):
        self.check()
        super().load_own_variables(store)


@registered
class WithoutConfig(keras.layers.Layer):
    """Keras makes its config by itself."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.a, self.b, self.c = (
            self.add_weight(shape=(input_shape[-1], self.units), name=name) for name in "abc"
        )

    def call(self, inputs):
        return inputs @ self.a + inputs @ self.b + inputs @ self.c


@registered
class Swallowing(Gate):
    """It takes any argument and keeps none."""

    def __init__(self, **anything):
        super().__init__(name=anything.get("name"))


@registered
class Tower(keras.Model):
    """A Functional subclass, which takes any argument, too: Keras's constructor keeps silent."""

    def __init__(self, **kwargs):
        inputs = keras.Input((3,))
        super().__init__(inputs, keras.layers.Dense(2)(Gate()(inputs)), **kwargs)

    def get_config(self):
        return {"name": self.name, "trainable": self.trainable}


LAYERS = [Gate, Tagged, Listed, Abstract, Slotted, Final, WithoutConfig, Swallowing]


def model_of(layer):
    inputs = keras.Input((3,))
    return keras.Model(inputs, layer(inputs))


def carrying(cls, *, in_place=False):
    model = cls() if issubclass(cls, keras.Model) else model_of(cls())
    model = graphwd.rewrite(model, POLICY, in_place=in_place)
    kept = model if issubclass(cls, keras.Model) else model.layers[-1]
    assert carrier.is_carrier(kept)
    assert isinstance(kept, cls)
    return model, kept


def assert_kept(ours, theirs):
    assert theirs is not ours
    assert len(theirs.losses) == len(ours.losses) == len(ours.trainable_variables) > 0
    for source, variable in zip(ours.variables, theirs.variables, strict=True):
        assert variable is not source
        assert (variable.regularizer is None) == (source.regularizer is None)


def through_file(model, path):
    model.save(path)
    return keras.saving.load_model(path)


def count_losses(kept):
    return len(kept.losses)


def penalised(model):
    return sorted(
        v.name for v in model.trainable_variables if v.regularizer is not None and v.trainable
    )
