"""Serialized regularizers: shorthand, units, equality and the penalty's unit of measure.

The pure core never holds a Keras regularizer, only what Keras writes for one into a config:
`{"module": "keras.regularizers", "class_name": "L2", "config": {"l2": 1e-4}, ...}`. Legacy
files write the same without `module`.
"""

from __future__ import annotations

import numbers
import struct
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from graphwd.errors import PolicyError

Serialized: TypeAlias = Mapping[str, Any]
"""What Keras writes into a config for one regularizer."""

NONE = "none"
"""What a policy file has for no regularizer: TOML has no null."""

_KERAS = ("keras", "tf_keras")
_STOCK = {"L1": ("l1",), "L2": ("l2",), "L1L2": ("l1", "l2")}
_ORTHOGONAL = {"OrthogonalRegularizer": ("factor",)}


def l1(factor: float) -> dict[str, Any]:
    """The serialized `keras.regularizers.L1(factor)`, whose penalty is `factor * sum(|w|)`."""
    return _stock("L1", {"l1": float(factor)})


def l2(factor: float) -> dict[str, Any]:
    """The serialized `keras.regularizers.L2(factor)`, whose penalty is `factor * sum(w ** 2)`."""
    return _stock("L2", {"l2": float(factor)})


def from_weight_decay(decay: float) -> dict[str, Any]:
    """The serialized L2 whose gradient is `decay * w`; that of `L2(a)` is `2 * a * w`."""
    return l2(decay / 2)


def _stock(class_name: str, config: dict[str, float]) -> dict[str, Any]:
    return {
        "module": "keras.regularizers",
        "class_name": class_name,
        "config": config,
        "registered_name": None,
    }


def serialize(regularizer: Any) -> dict[str, Any] | None:
    """The serialized form of whatever a user may give as a regularizer."""
    if regularizer is None:
        return None
    while hasattr(regularizer, "unscaled"):  # while a schedule is on, its base strength is meant
        regularizer = regularizer.unscaled
    if isinstance(regularizer, Mapping):
        if not isinstance(regularizer.get("class_name"), str) or not isinstance(
            regularizer.get("config"), Mapping
        ):
            raise PolicyError(
                "A serialized regularizer needs a string `class_name` and a mapping `config`; "
                f"received {dict(regularizer)!r}."
            )
        return dict(regularizer)
    if isinstance(regularizer, str) or callable(regularizer):
        import keras  # an identifier needs it; the maker of an object has imported it already

        try:
            serialized = keras.regularizers.serialize(keras.regularizers.get(regularizer))
        except Exception as error:  # a get_config may raise anything
            raise PolicyError(
                f"{regularizer!r} is not a regularizer that Keras can serialize ({error}); "
                "give a keras.regularizers object with a get_config method."
            ) from error
        if isinstance(serialized, dict):
            return serialized
    if isinstance(regularizer, numbers.Real):
        raise PolicyError(
            f"{regularizer!r} is a number without a unit: make it "
            f"graphwd.weight_decay({regularizer!r}) or keras.regularizers.L2({regularizer!r})."
        )
    raise PolicyError(
        f"{regularizer!r} is not a regularizer: give a keras.regularizers object, its identifier, "
        "its serialized form, or None."
    )


def held(regularizer: Any) -> dict[str, Any] | None:
    """The serialized form of what a weight has; of a regularizer without a config its class."""
    try:
        return serialize(regularizer)
    except PolicyError:
        cls = type(regularizer)
        return {
            "module": cls.__module__,
            "class_name": cls.__name__,
            "config": None,
            "registered_name": None,
        }


def can_be_made(serialized: Serialized | None) -> bool:
    """Whether a regularizer can be made of its serialized form: not of a lambda's or a method's."""
    if serialized is None:
        return True
    config, kind = serialized.get("config"), serialized["class_name"]
    if kind == "function":
        return ">" in str(config)  # the name of one that is registered
    return isinstance(config, Mapping) and kind != "__lambda__"


def once() -> Callable[[Any], Serialized | None]:
    """A `held` that asks each object once: the layers of a model share a few of them."""
    known: dict[int, tuple[Any, Serialized | None]] = {id(None): (None, None)}

    def serialize_once(regularizer: Any) -> Serialized | None:
        place = id(regularizer)
        if place not in known:
            known[place] = regularizer, held(regularizer)  # kept, so that its id stays its own
        return known[place][1]

    return serialize_once


def normalize(serialized: Serialized | None) -> Any:
    """A hashable value that is equal for two serialized regularizers that mean the same."""
    # The same regularizer is written in several ways: with and without `module`, as `L2` or, by
    # Keras 2, as `L1L2` with one factor zero, and with factors that were rounded to float32 on the
    # way (tf_keras writes 0.0001 as 9.999999747378752e-05).
    if serialized is None:
        return None
    config = serialized.get("config") or {}
    if known := stock_factors(serialized):
        factors = {"l1": 0.0, "l2": 0.0}
        for key in known:
            value = config.get(key, 0.0)
            factors[key] = _single(float(value)) if isinstance(value, (int, float)) else value
        return ("l1l2", factors["l1"], factors["l2"])
    return (serialized.get("registered_name") or serialized["class_name"], _freeze(config))


def stock_factors(
    serialized: Serialized, among: Mapping[str, tuple[str, ...]] = _STOCK
) -> tuple[str, ...]:
    """The factors of a regularizer of Keras's own; none for another one, also of the same name."""
    own_name = serialized.get("registered_name") in (None, serialized["class_name"])
    of_keras = str(serialized.get("module") or "keras").split(".")[0] in _KERAS
    return among.get(serialized["class_name"], ()) if own_name and of_keras else ()


def multiplied(serialized: Serialized | None, factor: float) -> dict[str, Any] | None:
    """The regularizer whose penalty is `factor` times as large; none for the factor 0."""
    if serialized is None or not factor:
        return None
    keys = stock_factors(serialized, {**_STOCK, **_ORTHOGONAL})
    if wants_start(serialized):
        keys = ("strength",)
    config = dict(serialized.get("config") or {})
    if not any(key in config for key in keys):
        raise PolicyError(
            f"{describe(serialized)} can't be multiplied by {factor:g}, since only the factors of "
            "Keras's own L1, L2, L1L2 and OrthogonalRegularizer, and of L2SP, are known; give "
            "these weights that penalty in a rule of their own."
        )
    return {
        **serialized,
        "config": {key: config[key] * factor if key in keys else config[key] for key in config},
    }


def equal(one: Serialized | None, other: Serialized | None) -> bool:
    """Whether two serialized regularizers mean the same penalty."""
    if one is None or other is None or one is other:
        return one is other
    return bool(normalize(one) == normalize(other))


def fits_every_float(serialized: Serialized | None) -> bool:
    """Whether a serialized regularizer is none or one of Keras's own sums over all numbers."""
    return serialized is None or normalize(serialized)[0] == "l1l2"


def wants_start(serialized: Serialized | None) -> bool:
    """Whether a penalty is measured from a start, which takes the weights of a live model."""
    return serialized is not None and serialized.get("registered_name") == "graphwd>L2SP"


def describe(serialized: Serialized | None) -> str:
    """A short text for tables and messages: `L2(0.0001)`, `L1L2(l1=0.1, l2=0.2)`, `none`."""
    if serialized is None:
        return "none"
    class_name = str(serialized["class_name"])
    config = serialized.get("config") or {}
    if not isinstance(config, Mapping):  # a function's name
        return str(serialized.get("registered_name") or config)
    if class_name in ("L1", "L2") and len(config) == 1:
        return f"{class_name}({_number(next(iter(config.values())))})"
    return f"{class_name}({', '.join(f'{k}={_number(v)}' for k, v in config.items())})"


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _single(value: float) -> float:
    """The nearest float32: the precision in which the penalty is computed anyway."""
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:
        return value


def _freeze(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(sorted((str(k), _freeze(v)) for k, v in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(v) for v in value)
    if value is None or isinstance(value, (str, bytes, numbers.Number)):
        return value
    return type(value).__name__  # what a lambda closes over, of which a copy has its own
