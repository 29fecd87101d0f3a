"""Does it train the same? Loss and weights beside a penalty that is written by hand.

A small network learns scikit-learn's handwritten digits on TensorFlow, from the same weights and
with the same batches: with graphwd's penalty, with one in a training loop by hand, with the
add_loss hack, with add_loss in the `call` of a model around it, and without any.
"""

from collections.abc import Callable
from typing import Any

from benchmarks import charts, harness
from benchmarks.progress import Meter
from benchmarks.tables import Table, relative

PICTURES = ("training",)
SEEDS = 3
EPOCHS = 30
BATCH = 32
FACTOR = 1e-3
HELD_OUT = 500
PLAIN, HACK, IN_CALL = "no penalty", "add_loss hack", "add_loss in call"
BY_HAND, REWRITTEN = "penalty by hand", "graphwd"
WAYS = (PLAIN, HACK, IN_CALL, BY_HAND, REWRITTEN)
PENALISED = (IN_CALL, BY_HAND, REWRITTEN)
MEASURES = {"objective": "loss", "norm": "norm of the kernels", "accuracy": "held-out accuracy"}


def run(meter: Meter, quick: bool) -> dict[str, Any]:
    """Trains every way from several seeds.

    Args:
        meter: Shows the progress.
        quick: Whether to train for two epochs, from one seed.

    Returns:
        For each seed and way, what was measured after each epoch.
    """
    seeds, epochs = (1, 2) if quick else (SEEDS, EPOCHS)
    meter.start(seeds)
    measured = []
    for seed in range(seeds):
        meter.now(f"seed {seed + 1}")
        measured.append(harness.worker("training:trained", seed, epochs))
        meter.step(f"seed {seed + 1}")
    return {"seeds": measured}


def trained(seed: int, epochs: int) -> dict[str, dict[str, list[float]]]:
    """Trains every way from one seed; runs in a process of its own."""
    import keras
    import numpy
    import sklearn.datasets

    import graphwd
    from benchmarks.works.ways import add_loss_in_call

    x, y = sklearn.datasets.load_digits(return_X_y=True)
    order = numpy.random.default_rng(seed).permutation(len(x))
    x, y = (x[order] / 16).astype("float32"), y[order]
    batches = [
        numpy.random.default_rng([seed, epoch]).permutation(len(x) - HELD_OUT)
        for epoch in range(epochs)
    ]
    found: dict[str, dict[str, list[float]]] = {}
    for way in WAYS:
        keras.utils.set_random_seed(seed)
        model = _network()
        penalty = keras.regularizers.L2(FACTOR)
        if way == REWRITTEN:
            model = graphwd.rewrite(model, penalty)
        elif way == HACK:
            for layer in model.layers:
                layer.add_loss(penalty(layer.kernel))
        trained = add_loss_in_call(model, {"*": FACTOR}) if way == IN_CALL else model
        trained.compile(keras.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy")
        epoch = _epoch_by_hand(model) if way == BY_HAND else _epoch(trained)
        found[way] = {measure: [] for measure in MEASURES}
        for chosen in batches:
            epoch(x[HELD_OUT:][chosen], y[HELD_OUT:][chosen])
            for measure, value in _measures(model, x, y, penalised=way in PENALISED):
                found[way][measure].append(value)
    return found


def _network() -> Any:
    from keras import Input, Sequential, layers

    return Sequential(
        [
            Input((64,)),
            layers.Dense(64, "relu"),
            layers.Dense(64, "relu"),
            layers.Dense(10, "softmax"),
        ]
    )


def _epoch(model: Any) -> Callable[[Any, Any], Any]:
    return lambda x, y: model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)


def _epoch_by_hand(model: Any) -> Callable[[Any, Any], Any]:
    """Steps without `fit`, without a regularizer: the penalty is written out."""
    import tensorflow

    optimizer, variables = model.optimizer, model.trainable_variables

    @tensorflow.function
    def step(x: Any, y: Any) -> None:
        with tensorflow.GradientTape() as tape:
            each = tensorflow.keras.losses.sparse_categorical_crossentropy(
                y, model(x, training=True)
            )
            loss = tensorflow.reduce_mean(each)
            for layer in model.layers:
                loss += FACTOR * tensorflow.reduce_sum(tensorflow.square(layer.kernel.value))
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        optimizer.apply(gradients, variables)

    def epoch(x: Any, y: Any) -> None:
        for start in range(0, len(x), BATCH):
            step(x[start : start + BATCH], y[start : start + BATCH])

    return epoch


def _measures(model: Any, x: Any, y: Any, *, penalised: bool) -> list[tuple[str, float]]:
    """What is measured after an epoch, by the same arithmetic for every way."""
    import keras
    import numpy

    predicted = keras.ops.convert_to_numpy(model(x, training=False)).astype("float64")
    right = predicted[numpy.arange(len(y)), y]
    squares = sum(
        float((layer.kernel.numpy().astype("float64") ** 2).sum()) for layer in model.layers
    )
    entropy = float(-numpy.log(numpy.maximum(right[HELD_OUT:], 1e-30)).mean())
    return [
        ("objective", entropy + FACTOR * squares * penalised),
        ("norm", squares**0.5),
        ("accuracy", float((predicted.argmax(1) == y)[:HELD_OUT].mean())),
    ]


def difference(data: dict[str, Any], one: str, other: str) -> float:
    """The largest relative difference of loss or norm, over all epochs and seeds."""
    return max(
        abs(ours - theirs) / abs(theirs)
        for seed in data["seeds"]
        for measure in ("objective", "norm")
        for ours, theirs in zip(seed[one][measure], seed[other][measure], strict=True)
    )


def tables(data: dict[str, Any]) -> dict[str, Table]:
    """What the first seed ends at, and how far from the penalty by hand each way is at most."""
    rows = []
    for way in WAYS:
        last = {measure: data["seeds"][0][way][measure][-1] for measure in MEASURES}
        apart = "" if way == BY_HAND else relative(difference(data, way, BY_HAND))
        rows.append(
            [
                f"**{way}**" if way == REWRITTEN else way,
                f"{last['objective']:.4f}",
                f"{last['norm']:.3f}",
                f"{last['accuracy']:.1%}",
                apart,
            ]
        )
    heads = ["way", *MEASURES.values(), "largest relative difference from by hand"]
    return {"training": Table("Digits, after the last epoch", heads, rows)}


def figures(data: dict[str, Any]) -> dict[str, str]:
    """What the pages say in prose."""
    return {
        "training-difference": relative(difference(data, REWRITTEN, BY_HAND)),
        "training-hack": relative(difference(data, HACK, PLAIN)),
        "training-epochs": str(len(data["seeds"][0][PLAIN]["norm"])),
        "training-seeds": str(len(data["seeds"])),
    }


def draw(data: dict[str, Any]) -> dict[str, Any]:
    """Loss and norm of the first seed, epoch by epoch."""
    picture, (panels,) = charts.figure(columns=2, width=10, height=4.4)
    looks = {
        PLAIN: {"color": "#8C959F", "linewidth": 5, "alpha": 0.55},
        HACK: {"color": "#D55E00", "linestyle": "--"},
        IN_CALL: {"color": "#009E73", "linewidth": 3, "alpha": 0.6},
        REWRITTEN: {"color": charts.OURS, "linewidth": 5, "alpha": 0.45},
        BY_HAND: {"color": "#24292F", "linestyle": "--"},
    }
    titles = {"objective": "Loss, its penalty included", "norm": "Norm of the kernels"}
    for axes, (measure, title) in zip(panels, titles.items(), strict=True):
        for way, look in looks.items():
            values = data["seeds"][0][way][measure]
            axes.plot(range(1, len(values) + 1), values, label=way, **look)
        axes.set_title(title)
        axes.set_xlabel("epoch")
    panels[0].set(yscale="log", ylabel="training loss")
    panels[1].set_ylabel("norm of all kernels")
    handles, labels = panels[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=len(WAYS))
    return {"training": picture}
