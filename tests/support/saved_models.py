"""Small saved models made without Keras, and the pieces to damage them."""

import io
import json
import zipfile

import h5py
import numpy as np

from graphwd.policy.policies import Policy, Rule
from graphwd.policy.regularizers import l2
from graphwd.saved import archive

POLICY = Policy([Rule(l2(1e-4), roles="kernel")])


def dense(name, units=3, module="keras.layers", class_name="Dense", **config):
    return {
        "module": module,
        "class_name": class_name,
        "config": {"name": name, "units": units, "use_bias": True, **config},
        "registered_name": None,
    }


def regularized(name, **config):
    return dense(name, kernel_regularizer=None, bias_regularizer=None, **config)


def model_config(*layers, **top):
    inner = {"name": "model", "layers": list(layers or [regularized("one"), regularized("two")])}
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": inner,
        "registered_name": None,
        "compile_config": {"optimizer": "adam", "loss": "mse"},
        **top,
    }


def weights_bytes(edit=None):
    """A `.weights.h5` file as Keras lays it out, with an array edited by a function."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for number, name in enumerate(("one", "two")):
            key = f"layers/dense{f'_{number}' if number else ''}/vars"
            group = file.create_group(key)
            group.attrs["name"] = name
            group["0"] = np.arange(12, dtype="float32").reshape(4, 3) + number
            group["1"] = np.full(3, np.nan, dtype="float32")
        if edit is not None:
            edit(file)
    return stream.getvalue()


def write_keras(path, config=None, weights=None, *, text=None, method=zipfile.ZIP_STORED, more=()):
    """A `.keras` archive; `text` replaces the JSON of `config`, `more` are further members."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        content = json.dumps(model_config() if config is None else config) if text is None else text
        archive.writestr("config.json", content)
        archive.writestr("model.weights.h5", weights_bytes() if weights is None else weights)
        for name, data in more:
            archive.writestr(name, data)
    return path


def write_h5(path, config=None, edit=None, *, text=None):
    """A whole-model `.h5` file."""
    with h5py.File(path, "w") as file:
        content = json.dumps(model_config() if config is None else config) if text is None else text
        file.attrs["model_config"] = content.encode() if isinstance(content, str) else content
        file.attrs["training_config"] = b'{"loss": "mse"}'
        file.attrs["keras_version"] = b"3.15.1"
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"one", b"two"]
        for name in ("one", "two"):
            inner = group.create_group(name)
            inner.attrs["weight_names"] = [f"{name}/kernel".encode(), f"{name}/bias".encode()]
            inner[f"{name}/kernel"] = np.arange(12, dtype="float32").reshape(4, 3)
            inner[f"{name}/bias"] = np.full(3, np.nan, dtype="float32")
        if edit is not None:
            edit(file)
    return path


def slots_of_file(path):
    with archive.Archive(path) as opened:
        return opened.slots()


def unreached(path):
    with archive.Archive(path) as opened, opened.reach(opened.slots()) as reach:
        return list(reach.unreached)


def compare_weights(one, other):
    with archive.Archive(one) as first, archive.Archive(other) as second:
        return archive.compare_archives(first, second)
