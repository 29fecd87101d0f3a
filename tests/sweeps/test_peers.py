"""You have X, write Y: the peers' own predicates beside the policies of the pages' table."""

import functools
import gc
import re
from pathlib import Path

import keras
import pytest
from keras import layers

import graphwd
from graphwd.graph.slots import Slot
from tests.support import oracle
from tests.support.peers import PEERS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
EVIDENCE = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
DECAY = 0.05
NAMES = {
    "Rule": graphwd.Rule,
    "times": graphwd.times,
    "decay": graphwd.weight_decay(DECAY),
}
TRIED = [(peer, model) for peer in PEERS for model in peer.models]


def hub():
    return pytest.importorskip("tests.support.hub_models", reason="keras-hub is not installed")


@functools.lru_cache(maxsize=1)
def build(name):
    keras.backend.clear_session()
    gc.collect()
    if hasattr(keras.applications, name):
        return getattr(keras.applications, name)(weights=None)
    if name == "ViTImageClassifier":
        classifier = hub().find_class(name)
        return classifier(backbone=hub().BACKBONES["ViTBackbone"](), num_classes=3)
    backbone = hub().BACKBONES[name.removesuffix(" with a head")]()
    if not name.endswith(" with a head"):
        return backbone
    return keras.Model(backbone.input, layers.Dense(3, name="head")(backbone.output))


def weights(model):
    """Layer, variable and place of every weight of floating-point numbers, each once."""
    seen, found = set(), []
    stack = [(model, ())]
    while stack:
        layer, names = stack.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        for variable in oracle.owned(layer):
            if id(variable) not in seen and "float" in str(variable.dtype):
                seen.add(id(variable))
                found.append((layer, variable, "/".join((*names, variable.name))))
        inner = [layer for layer in layer._layers if isinstance(layer, keras.Layer)]
        stack.extend((one, (*names, one.name)) for one in reversed(inner))
    return found


def policy(peer):
    rules = eval(f"[{peer.write}]", dict(NAMES))
    assert 1 <= len(rules) <= 3
    return graphwd.Policy(rules)


@pytest.mark.parametrize(
    ("peer", "name"),
    sorted(TRIED, key=lambda pair: pair[1]),
    ids=lambda value: getattr(value, "have", value),
)
def test_a_policy_is_its_peer(peer, name):
    model = build(name)
    found = weights(model)
    expected = [
        2 * DECAY / 4 * multiple if (multiple := float(peer.multiple(*one))) else None
        for one in found
    ]
    assert {*expected} - {None}
    graphwd.rewrite(model, policy(peer), in_place=True, verify=False)
    actual = [
        None if variable.regularizer is None else float(variable.regularizer.l2)
        for _, variable, _ in found
    ]
    graphwd.rewrite(model, graphwd.Rule(None), in_place=True, verify=False)
    wrong = [
        (place, is_, was)
        for (_, _, place), is_, was in zip(found, actual, expected, strict=True)
        if (is_ is None) != (was is None) or (is_ and is_ != pytest.approx(was, rel=1e-5))
    ]
    assert not wrong


def test_there_are_two_dozen_of_them():
    assert len({peer.have for peer in PEERS}) == len(PEERS) >= 22


def test_the_table_is_theirs():
    table = EVIDENCE.split("<!-- peers -->")[1].split("<!-- /peers -->")[0]
    lines = [f"| {peer.have} | `{peer.write}` |" for peer in PEERS if peer.told]
    assert table.strip().splitlines()[2:] == lines
    assert not any("|" in line[1:-1].replace(" | ", "") for line in lines)


# --- figures of timm itself --------------------------------------------------------------------

# Computed with timm 1.0.31 (param_groups_layer_decay, layer_decay=0.75) on its own models: the
# number of decayed parameters at each distance from the top.
TIMM = {
    "ConvNeXtTiny": (
        20,
        28_524_000,
        {0: 768_000, 1: 4_756_224, 3: 5_935_872, 18: 78_432, 19: 4608},
    ),
}


@pytest.mark.parametrize("name", TIMM)
def test_depth_is_timms_group_by_group(name):
    (peer,) = [p for p in PEERS if p.models == (name,) and "layer_decay" in p.have]
    groups, total, some = TIMM[name]
    distances: dict[int, int] = {}
    for edit in graphwd.plan(build(name), policy(peer)).slots:
        if edit.after is None:
            continue
        multiple, distance = edit.after["config"]["l2"] / (DECAY / 2), 0
        while multiple < 0.999:
            multiple, distance = multiple / 0.75, distance + 1
        distances[distance] = distances.get(distance, 0) + edit.slot.parameters
    assert (len(distances), sum(distances.values())) == (groups, total)
    assert {distance: distances[distance] for distance in some} == some


# --- Keras's own exclusion ----------------------------------------------------------------------


def decayed(optimizer, model):
    optimizer.build(model.trainable_variables)
    found = set()
    for each in getattr(optimizer, "optimizers", [optimizer]):  # a MultiOptimizer has several
        own = each._trainable_variables if each is not optimizer else model.trainable_variables
        found |= {v.path for v in own if each.weight_decay and each._use_weight_decay(v)}
    return [v.path for v in model.trainable_variables if v.path in found]


def small():
    inputs = keras.Input((4,))
    x = layers.Dense(3, name="first")(inputs)
    x = layers.LayerNormalization(name="norm")(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def test_keras_own_exclusion_has_two_traps_that_graphwd_has_not():
    optimizer = keras.optimizers.AdamW(weight_decay=DECAY)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta"])
    assert "first/bias" in decayed(optimizer, small()), "the second call replaces the first"
    optimizer = keras.optimizers.AdamW(weight_decay=DECAY)
    optimizer.exclude_from_weight_decay(var_names=["norm", "head"])
    assert len(decayed(optimizer, small())) == 6, "names of layers are not looked at"

    model = small()
    policy = [
        graphwd.Rule(graphwd.weight_decay(DECAY), roles="!activity"),
        graphwd.Rule(None, roles="bias"),
        graphwd.Rule(None, layers="LayerNormalization"),
        graphwd.Rule(None, paths="head/*"),
    ]
    optimizer = graphwd.decouple(model, policy, keras.optimizers.AdamW())
    assert decayed(optimizer, model) == ["first/kernel"]
    words = " ".join(README.split())
    assert "a second call replaces the first" in words
    assert "never against the layer" in words


def test_the_trap_of_stars_is_told():
    block = re.compile(r"`\*block_1\*` is also block 10")
    assert block.search(" ".join(README.split()))
    slots = [Slot(f"block_{number}/kernel", "kernel", (), None, ()) for number in (1, 10)]
    loose, exact = (graphwd.Rule("l2", paths=f"*block_1{rest}") for rest in ("*", "/*"))
    assert [loose.matches(slot) for slot in slots] == [True, True]
    assert [exact.matches(slot) for slot in slots] == [True, False]
