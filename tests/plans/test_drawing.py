"""Drawings: every layer is in one, boxes don't overlap, repeats fold, size doesn't matter."""

import random

import keras
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphwd.errors import ModelError
from graphwd.graph.slots import find_slots
from graphwd.plans import drawing
from graphwd.plans.edits import Edit
from tests.support import serialized, strategies


def mark(decision):
    return "nothing" if decision.after is None else "p0"


def draw(serialized):
    slots = find_slots(serialized)
    return drawing.draw(serialized, [Edit(s, s.regularizer) for s in slots], mark)


def layer(name, before, class_name="Dense", **config):
    """A layer that takes what the layers before it give."""
    tensors = [serialized.tensor(maker) for maker in before]
    calls = [tensors if len(tensors) == 1 else [tensors]] if before else []
    return serialized.layer(class_name, name, *calls, **config)


def functional(layers, name="model"):
    taken = {
        tensor["config"]["keras_history"][0]
        for one in layers
        for node in one["inbound_nodes"]
        for tensor in (node["args"][0] if isinstance(node["args"][0], list) else node["args"])
    }
    inputs = [[one["name"], 0, 0] for one in layers if not one["inbound_nodes"]]
    outputs = [[one["name"], 0, 0] for one in layers if one["name"] not in taken]
    return serialized.functional(layers, inputs, outputs, name)


def dense(name, before):
    return layer(name, before, kernel_regularizer=None, bias_regularizer=None)


def random_model(seed, size, width):
    """Layers that each take some of the few layers before them."""
    generator = random.Random(seed)
    layers = [layer("l0", [], "InputLayer")]
    for number in range(1, size):
        near = [f"l{n}" for n in range(max(0, number - width), number)]
        before = sorted(generator.sample(near, min(len(near), generator.choice([1, 1, 1, 2, 3]))))
        make = dense if generator.random() < 0.5 and len(before) == 1 else layer
        layers.append(make(f"l{number}", before))
    return functional(layers)


def boxes(panels):
    return [b for panel in panels for r in panel.repeats for p in r.pictures for b in p.boxes]


def assert_sound(panels, names):
    drawn = [name for box in boxes(panels) for name in box.lines[0].split(", ")]
    assert sorted(drawn) == sorted(names)
    for panel in panels:
        for picture in (p for r in panel.repeats for p in r.pictures):
            for box in picture.boxes:
                assert 0 <= box.x <= picture.width - drawing.WIDTH
                assert 0 <= box.y <= picture.height - drawing.HEIGHT
                others = [b for b in picture.boxes if b is not box and b.y == box.y]
                assert all(abs(b.x - box.x) >= drawing.WIDTH for b in others)


@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(1, 6))
def test_every_layer_of_a_random_graph_is_drawn_once(seed, size, width):
    assert_sound(draw(random_model(seed, size, width)), [f"l{n}" for n in range(size)])


@given(strategies.models())
def test_every_layer_of_a_random_model_is_drawn(model):
    serialized = keras.saving.serialize_keras_object(model)
    panels = draw(serialized)
    assert {box.name for box in boxes(panels)}
    assert all(box.slot is None or box.pips for box in boxes(panels))


def test_a_residual_line_passes_by_and_is_not_cut():
    layers = [layer("in", [], "InputLayer"), dense("a", ["in"]), dense("b", ["a"])]
    layers += [layer("sum", ["a", "b"], "Add"), layer("end", ["sum"], "ReLU")]
    (panel,) = draw(functional(layers))
    (repeat,) = panel.repeats
    pictures = repeat.pictures
    assert [[box.name for box in p.boxes] for p in pictures] == [["in"], ["a"], ["b"], ["sum"]]
    assert len(pictures[2].lines) == 3  # into b, out of b, and past it
    assert pictures[3].boxes[0].kind == "Add + ReLU"
    assert not pictures[3].lines  # nothing follows


def test_repeated_blocks_fold():
    layers = [layer("in", [], "InputLayer"), dense("stem", ["in"])]
    last = "stem"
    for number in range(20):
        layers.append(dense(f"block{number}_one", [last]))
        layers.append(dense(f"block{number}_two", [f"block{number}_one"]))
        layers.append(layer(f"block{number}_add", [last, f"block{number}_two"], "Add"))
        last = f"block{number}_add"
    layers.append(dense("head", [last]))
    (panel,) = draw(functional(layers))
    assert [repeat.times for repeat in panel.repeats] == [1, 20, 1]
    names = [box.name for p in panel.repeats[1].pictures for box in p.boxes]
    assert names == ["block*_one", "block*_two", "block*_add"]


def test_what_looks_different_does_not_fold():
    layers = [layer("l0", [], "InputLayer")]
    for number in range(1, 60):
        one = dense(f"l{number}", [f"l{number - 1}"])
        if number == 30:
            one["config"]["kernel_regularizer"] = {"class_name": "L2", "config": {"l2": 0.1}}
        layers.append(one)
    (panel,) = draw(functional(layers))
    assert [repeat.times for repeat in panel.repeats] == [1, 29, 1, 29]
    assert [box.marks for box in boxes([panel])] == ["weightless", "nothing", "p0", "nothing"]


def test_a_thousand_layers_without_a_cut_stay_readable():
    layers, ends = [layer("in", [], "InputLayer")], []
    for tower in range(8):
        last = "in"
        for number in range(150):
            layers.append(dense(f"tower{tower}_{number}", [last]))
            last = f"tower{tower}_{number}"
        ends.append(last)
    layers.append(layer("sum", ends, "Add"))
    (panel,) = draw(functional(layers))
    assert panel.width == drawing.WIDTH
    assert [box.times for box in boxes([panel])] == [1, *[8] * 150, 1]
    assert boxes([panel])[1].name == "tower*_0"


def test_a_long_line_and_deep_nesting_need_no_recursion(monkeypatch):
    layers = [layer("l0", [], "InputLayer")]
    layers += [dense(f"l{n}", [f"l{n - 1}"]) for n in range(1, 5000)]
    assert len(boxes(draw(functional(layers)))) < 5
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="leaf")])
    for _ in range(60):
        inputs = keras.Input((2,))
        model = keras.Model(inputs, model(inputs))
    panels = draw(keras.saving.serialize_keras_object(model))
    assert len(panels) == 61
    monkeypatch.setattr(drawing, "_PANELS", 10)
    panels = draw(keras.saving.serialize_keras_object(model))
    assert len(panels) == 10
    assert [box.panel for panel in panels[-1:] for box in panel.boxes] == [None, None]
    assert [box.panel for box in boxes(panels[:1])] == [None, 1]
    assert panels[2].path.count("/") == 1


def test_nested_models_that_look_the_same_are_one_panel():
    def block(name, units=4):
        inputs = keras.Input((4,))
        inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units)], name=f"in_{name}")
        return keras.Model(inputs, keras.layers.Add()([inner(inputs), inputs]), name=name)

    def draw_with(odd):
        x = inputs = keras.Input((4,))
        for number in range(5):
            x = block(f"block_{number}")(x)
        return draw(keras.saving.serialize_keras_object(keras.Model(inputs, odd(x))))

    panels = draw_with(block("block_5"))
    assert [(panel.path, panel.times) for panel in panels] == [
        ("", 1),
        ("block_*", 6),
        ("block_*/in_block_*", 6),
    ]
    assert [box.panel for box in panels[0].boxes if box.kind == "Functional"] == [1] * 6
    assert [box.panel for box in panels[1].boxes if box.kind == "Sequential"] == [2]
    relu = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()], name="block_5")
    panels = draw_with(relu)
    assert [(panel.path, panel.times) for panel in panels][:3] == [
        ("", 1),
        ("block_*", 5),
        ("block_5", 1),
    ]


def test_a_loop_is_told():
    looped = functional([layer("a", ["b"], "Add"), layer("b", ["a"], "Add")])
    with pytest.raises(ModelError, match='model "model" form a loop'):
        draw(looped)


def test_a_model_without_a_graph_is_its_layers():
    inner = dense("deep", [])
    own = {"class_name": "Own", "config": {"name": "own", "encoder": inner, "decoder": inner}}
    (panel,) = draw(own)
    assert [(box.name, box.kind) for box in boxes([panel])] == [("deep", "Dense")]
    assert not any(p.lines for r in panel.repeats for p in r.pictures)
