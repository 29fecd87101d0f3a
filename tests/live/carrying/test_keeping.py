"""What a layer carries is kept by whatever way the layer is kept, whatever its class is like."""

import copy
import json
import multiprocessing
import pickle

import keras
import numpy as np
import pytest

import graphwd
from graphwd.live.carrying import carrier
from tests.support.kept import (
    LAYERS,
    POLICY,
    TAGGED,
    Gate,
    Listing,
    Tower,
    assert_kept,
    carrying,
    count_losses,
    penalised,
    through_file,
)

WAYS = {
    "file": lambda model, folder: through_file(model, folder / "model.keras"),
    "clone_model": lambda model, folder: keras.models.clone_model(model),
    "pickle": lambda model, folder: pickle.loads(pickle.dumps(model)),
    "deepcopy": lambda model, folder: copy.deepcopy(model),
    "json": lambda model, folder: keras.models.model_from_json(model.to_json()),
    "config": lambda model, folder: type(model).from_config(model.get_config()),
}


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("cls", [*LAYERS, Tower])
def test_models_are_kept_in_every_way(cls, in_place, tmp_path):
    model, kept = carrying(cls, in_place=in_place)
    taggings = dict(TAGGED), dict(Listing.listed)
    for way in WAYS.values():
        other = way(model, tmp_path)
        if way is not WAYS["clone_model"] or cls is not Tower:  # that takes it for a mere graph
            assert_kept(model, other)
            other(np.ones((2, 3), "float32"))
    if cls is not Tower:
        assert_kept(model, through_file(model, tmp_path / "model.h5"))
    assert (TAGGED, Listing.listed) == taggings
    assert graphwd.rewrite(model, graphwd.Rule(None), in_place=True).losses == []
    assert type(kept) is cls


@pytest.mark.parametrize("cls", [*LAYERS, Tower])
def test_layers_are_kept_by_themselves(cls):
    kept = carrying(cls)[1]
    for other in (
        pickle.loads(pickle.dumps(kept)),
        copy.deepcopy(kept),
        copy.copy(kept),
        pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(kept)))),
    ):
        assert_kept(kept, other)
        assert isinstance(other, cls)
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(kept)))
    other = keras.saving.deserialize_keras_object(serialized)
    other(np.ones((2, 3), "float32"))
    assert_kept(kept, other)


def test_another_process():
    model, kept = carrying(Gate)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(count_losses, [model, kept]) == [3, 3]


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_carrying_layer_of_keras_is_quantized(mode, tmp_path):
    layer = keras.layers.ReversibleEmbedding(6, 4, tie_weights=False, name="embedding")
    inputs = keras.Input((3,), dtype="int32")
    model = keras.Model(inputs, layer(layer(inputs), reverse=True))
    model = graphwd.rewrite(model, POLICY, in_place=True)
    assert carrier.is_carrier(layer)
    assert len(model.losses) == 2
    model.quantize(mode)
    assert layer.quantization_mode == mode
    loaded = through_file(model, tmp_path / "model.keras")
    assert len(loaded.losses) == len(model.losses) == 0
    one, two = (keras.ops.convert_to_numpy(m(np.ones((2, 3), "int32"))) for m in (model, loaded))
    np.testing.assert_array_equal(one, two)


def test_lora_inside_a_composite_layer(tmp_path):
    model, kept = carrying(Gate)
    kept.inner.enable_lora(2)
    loaded = through_file(model, tmp_path / "model.keras")
    assert penalised(loaded) == ["bias", "kernel", "scale"]
    assert len(loaded.weights) == 3

    again = graphwd.rewrite(model, POLICY, in_place=True)
    assert "lora_kernel_a" in penalised(again)
    with pytest.warns(UserWarning, match="lora_kernel_a in layer 'gate"):
        loaded = through_file(again, tmp_path / "again.keras")
    assert penalised(loaded) == ["bias", "kernel", "scale"]
