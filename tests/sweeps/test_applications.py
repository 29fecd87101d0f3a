"""Every model of keras.applications: rewritten, counted, summed by hand, loaded by Keras alone."""

import gc
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import graphwd
from tests.support import oracle

KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")
FACTOR = 1e-4
SMALLEST = {"Xception": 71, "Inception": 75, "NASNet": 64}  # the least that a family takes
# The smallest of each family; the others are the same, but larger.
QUICK = (
    "ConvNeXtTiny",
    "DenseNet121",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "InceptionResNetV2",
    "InceptionV3",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Large",
    "MobileNetV3Small",
    "NASNetMobile",
    "ResNet50",
    "ResNet50V2",
    "VGG16",
    "VGG19",
    "Xception",
)
NAMES = [
    name
    for name in dir(keras.applications)
    if name[0].isupper() and callable(getattr(keras.applications, name))
]

# A process of its own that knows Keras only: takes a name and a file, gives count and sum.
PROGRAM = """
import json, os, sys
import keras
for line in sys.stdin:
    name, path = json.loads(line)
    keras.utils.clear_session()
    model = keras.saving.load_model(path)
    os.remove(path)
    losses = [float(loss) for loss in model.losses]
    print(json.dumps([name, len(losses), sum(losses), "graphwd" in sys.modules]), flush=True)
    del model
"""


class StockKeras:
    """Loads files in a process that never imports graphwd, while this one goes on."""

    def __init__(self, folder: Path) -> None:
        self.expected: dict[str, tuple] = {}
        self.found: dict[str, list] = {}
        self.folder = folder
        self.errors = (folder / "stderr").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            cwd=folder,
        )

    def submit(self, name: str, model: keras.Model, expected: tuple) -> None:
        path = self.folder / f"{name}.keras"
        model.save(path)
        self.expected[name] = expected
        self.process.stdin.write(json.dumps([name, str(path)]) + "\n")
        self.process.stdin.flush()

    def result(self, name: str) -> list:
        while name not in self.found:
            line = self.process.stdout.readline()
            if not line:
                self.errors.seek(0)
                pytest.fail(self.errors.read()[-2000:])
            found, *rest = json.loads(line)
            self.found[found] = rest
        return self.found[name]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()


@pytest.fixture(scope="module")
def stock_keras(tmp_path_factory):
    process = StockKeras(tmp_path_factory.mktemp("stock"))
    yield process
    process.close()


def small(name: str) -> keras.Model:
    """The model on small pictures, without its classifier where that is most of its weights."""
    size = next((n for family, n in SMALLEST.items() if name.startswith(family)), 32)
    constructor = getattr(keras.applications, name)
    return constructor(weights=None, include_top=False, input_shape=(size, size, 3))


@pytest.fixture(autouse=True)
def memory():
    yield
    keras.utils.clear_session()
    gc.collect()  # a model is full of cycles


def test_there_are_forty():
    assert len(NAMES) >= 40


MARKED = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NAMES]


@pytest.mark.parametrize("name", MARKED)
def test_application(stock_keras, name):
    model = small(name)
    rewritten = graphwd.rewrite(model, graphwd.Policy.recipe("no-bias", l2=FACTOR))
    kernels = [oracle.array(v) for v in model.trainable_weights if v.name in KERNELS]
    by_hand = FACTOR * sum(np.square(value, dtype="float64").sum() for value in kernels)
    assert len(rewritten.losses) == len(kernels) > 0
    assert oracle.losses_sum(rewritten) == pytest.approx(by_hand, rel=1e-4)
    stock_keras.submit(name, rewritten, (len(kernels), by_hand))


@pytest.mark.parametrize("name", MARKED)
def test_application_in_stock_keras(stock_keras, name):
    if name not in stock_keras.expected:
        pytest.skip("test_application has not saved this model")
    count, by_hand = stock_keras.expected[name]
    losses, total, knows_graphwd = stock_keras.result(name)
    assert losses == count
    assert total == pytest.approx(by_hand, rel=1e-4)
    assert not knows_graphwd


@pytest.mark.parametrize("name", ["MobileNet", "EfficientNetB0"])
def test_with_the_classifier(name):
    """The whole model, classifier included, with outputs compared."""
    model = getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3), classes=10)
    rewritten = graphwd.rewrite(model, graphwd.Policy.recipe("no-bias"), verify="outputs")
    kernels = [v for v in model.trainable_weights if v.name in KERNELS]
    assert len(rewritten.losses) == len(kernels)
