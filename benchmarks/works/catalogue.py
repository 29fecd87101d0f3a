"""The ways and the columns by name: what a table needs to know, without Keras."""

from dataclasses import dataclass

TOO_MANY = "other weights change, too"
KERAS, LEGACY, HELPER = "keras", "tf_keras", "helper"


@dataclass(frozen=True)
class Entry:
    """One way.

    Attributes:
        title: What the table calls it.
        reason: Why it is as it is, in a note.
        environment: The kind of process that it runs in.
    """

    title: str
    reason: str
    environment: str = KERAS


WAYS = {
    "add_loss": Entry(
        "`layer.add_loss(penalty)`",
        "The losses are constants; the first step of training clears them, and nothing says so.",
    ),
    "add_loss_lambda": Entry(
        "`layer.add_loss(lambda: penalty)`", "Keras takes tensors only, and within `call`."
    ),
    "legacy_add_loss": Entry(
        "`layer.add_loss(penalty)`, tf_keras", "tf_keras asks for the lambda form.", LEGACY
    ),
    "legacy_add_loss_lambda": Entry(
        "`layer.add_loss(lambda: penalty)`, tf_keras",
        "It trains. A lambda isn't in the config, so that every file loses it. Tried "
        "without KerasHub.",
        LEGACY,
    ),
    "add_loss_in_call": Entry(
        "`add_loss` in the `call` of a wrapper",
        "It trains. The result is another model around the given one, which is trained.",
    ),
    "set_attribute": Entry(
        "set `kernel_regularizer`",
        "Only the config changes: there is no penalty until the model is saved and loaded.",
    ),
    "set_attribute_and_variable": Entry(
        "set it, and the variable's `regularizer`",
        "It trains. Weights within layers are in no config, so that files lose theirs; an LSTM's "
        "attribute can't be set.",
    ),
    "from_json": Entry(
        "set it, `model_from_json`, `set_weights`",
        "The given model's config changes, too; layers within layers are not reached.",
    ),
    "clone": Entry(
        "`clone_model` with a function, `set_weights`",
        "Layers within layers are not reached, and the optimizer starts anew.",
    ),
    "helper": Entry(
        "kecam 1.4.3, `add_l2_regularizer_2_model`",
        "It ends with a plain `clone_model`, which has new, random weights. Tried "
        "without KerasHub.",
        HELPER,
    ),
    "sgd_decay": Entry(
        "`SGD(weight_decay=...)`",
        "One strength for all. A .keras file forgets what was excluded, so that biases and "
        "normalization decay, too; from .h5 Keras can't use the optimizer.",
    ),
    "adamw_decay": Entry("`AdamW(weight_decay=...)`", "As for SGD; and the decay is decoupled."),
    "graphwd_live": Entry("**graphwd**", ""),
    "graphwd_in_place": Entry("**graphwd**, in place", "By design the given model is edited."),
    "graphwd_file": Entry(
        "**graphwd**, the file", "Weights that no config reaches take a live model."
    ),
}
COLUMNS = {
    "first_step": "1st step",
    "hundredth_step": "100th step",
    "survives_keras": ".keras",
    "survives_h5": ".h5",
    "same_weights": "same weights",
    "original_untouched": "original untouched",
    "nested_models": "nested models",
    "recurrent_kernels": "LSTM kernels",
    "composite_layers": "inside layers",
    "choice_of_layers": "choice by layer",
    "momentum_kept": "momentum kept",
}
SHORT_WAYS = (
    "add_loss",
    "set_attribute",
    "add_loss_in_call",
    "clone",
    "adamw_decay",
    "graphwd_live",
    "graphwd_file",
)
"""The ways that the README's table has."""
SHORT_COLUMNS = {
    "hundredth_step": "trains with it",
    "survives_keras": "saves it",
    "same_weights": "same weights",
    "composite_layers": "inside layers",
    "choice_of_layers": "choice by layer",
    "momentum_kept": "momentum kept",
    "lines": "lines",
}
"""Its columns."""
