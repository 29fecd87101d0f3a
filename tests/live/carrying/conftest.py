"""Models that carry penalties."""

import keras
import pytest

import graphwd
from tests.support.carrying import Tower, plain_model


@pytest.fixture
def rewritten():
    return graphwd.rewrite(plain_model(), graphwd.Rule(keras.regularizers.L2(1e-2)))


@pytest.fixture
def tower():
    return graphwd.rewrite(Tower(name="tower"), graphwd.Rule(keras.regularizers.L2(1e-2)))
