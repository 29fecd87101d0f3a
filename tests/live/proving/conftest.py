"""Models that are compared with copies of theirs."""

import keras
import numpy as np
import pytest

from tests.support.verified import small_model


@pytest.fixture(scope="module")
def original() -> keras.Model:
    return small_model()


@pytest.fixture(scope="module")
def compiled() -> keras.Model:
    model = small_model()
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    model.optimizer.build(model.trainable_variables)
    for index, variable in enumerate(model.optimizer.variables[2:]):
        variable.assign(np.full(variable.shape, 0.5 + index, "float32"))
    return model
