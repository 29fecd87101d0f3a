"""Roles: the names that Keras gives to weights, and how many dimensions these have."""

import pytest

from graphwd.graph import roles
from graphwd.graph.roles import known_ndim, prefix_for

# The class, its arguments, and the shape of a sample.
LAYERS = [
    ("Dense", (2,), (3,)),
    ("Embedding", (5, 2), (3,)),
    *((name, (2,), (4, 3)) for name in ("LSTM", "GRU", "SimpleRNN")),
    ("EinsumDense", ("abc,cde->abde", (None, 2, 3), None, "de"), (4, 3)),
    *((name, (2, 3), (9, 3)) for name in ("Conv1D", "Conv1DTranspose", "SeparableConv1D")),
    ("DepthwiseConv1D", (3,), (9, 3)),
    *((name, (2, 3), (9, 9, 3)) for name in ("Conv2D", "Conv2DTranspose", "SeparableConv2D")),
    ("DepthwiseConv2D", (3,), (9, 9, 3)),
    *((name, (2, 3), (9, 9, 9, 3)) for name in ("Conv3D", "Conv3DTranspose")),
    ("ConvLSTM1D", (2, 3), (4, 9, 3)),
    ("ConvLSTM2D", (2, 3), (4, 9, 9, 3)),
    ("BatchNormalization", (), (3,)),
    ("GroupNormalization", (1,), (3,)),
    ("LayerNormalization", (), (3,)),
    ("PReLU", (), (3, 4)),
]
UNKNOWN = ("LayerNormalization", "PReLU")  # theirs depend on the inputs


def build(name, arguments, shape, **more):
    keras = pytest.importorskip("keras")
    layer = getattr(keras.layers, name)(*arguments, **more)
    return layer, keras.Sequential([keras.Input(shape), layer])


@pytest.mark.parametrize(
    ("name", "arguments", "shape", "more"),
    [*((*one, {}) for one in LAYERS), ("GRU", (2,), (4, 3), {"reset_after": False})],
)
def test_known_dimensions_are_those_of_the_built_layer(name, arguments, shape, more):
    layer, model = build(name, arguments, shape, **more)
    from graphwd.live import survey

    told = 0
    for one in survey.survey(model).slots:
        known = known_ndim(name, layer.get_config(), one.role)
        told += known is not None
        assert known is None or {known} == set(map(len, one.shapes)), one.path
    assert told or name in UNKNOWN


@pytest.mark.parametrize(("name", "arguments", "shape"), LAYERS)
def test_a_weights_name_has_the_role_of_the_argument_that_governs_it(name, arguments, shape):
    layer, _ = build(name, arguments, shape)
    from keras.regularizers import L2

    prefixes = [key[: -len("_regularizer")] for key in layer.get_config() if "_regular" in key]
    factors = {role: number / 8 for number, role in enumerate(prefixes, 1) if role != "activity"}
    given = {f"{role}_regularizer": L2(factor) for role, factor in factors.items()}
    layer, _ = build(name, arguments, shape, **given)
    assert layer.trainable_variables
    told = []
    for variable in layer.trainable_variables:
        told.append(prefix_for(variable.name, factors))
        assert float(variable.regularizer.l2) == factors[told[-1]]
    assert set(told) <= set(roles.ORDER)
    assert told == sorted(told, key=roles.ORDER.index), "they are created in this order"


def test_other_names_have_no_role():
    assert prefix_for("scale", {"gamma", "beta"}) is None
    assert prefix_for("kernel", {"depthwise", "pointwise"}) is None
    assert prefix_for("kernels", {"kernel"}) is None
    assert known_ndim("Own", {"equation": "ab,bc->ac"}, "kernel") is None
    assert known_ndim("EinsumDense", {}, "kernel") is None
