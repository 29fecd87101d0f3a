"""Deciding: dimensions, multiples, depth and expectations, on plain slots and on real models."""

import math
import warnings

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers, regularizers

import graphwd
from graphwd.graph.roles import known_ndim
from graphwd.graph.slots import Slot
from graphwd.live import survey
from graphwd.plans import page
from graphwd.plans.edits import decide
from graphwd.plans.plan import make_plan
from graphwd.policy.policies import Policy, Rule
from tests.support import oracle

L2 = {"class_name": "L2", "config": {"l2": 1e-4}}
CUSTOM = {"class_name": "X", "config": {"l2": 1.0}, "registered_name": "my>X", "module": "my"}
MATRICES = {"ndim": ">=2", "roles": "!*bias*"}


def slot(path, *shapes, layers=("Layer",), held=None):
    return Slot(path, path.rsplit("/", 1)[-1], layers, held, (("config", path),), shapes=shapes)


def factors(policy, slots):
    """What L2(1) becomes on each slot, `None` without a regularizer."""
    edits, *_ = decide(Policy.coerce(policy), slots)
    return [e.after and next(iter(e.after["config"].values())) for e in edits]


# --- dimensions -----------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=3),
    st.sampled_from([">=", "<=", "==", "!=", ">", "<"]),
    st.integers(0, 6),
)
def test_dimensions_are_compared_as_numbers(ndims, comparison, number):
    one = slot("a/kernel", *((2,) * ndim for ndim in ndims))
    expected = {eval(f"{ndim}{comparison}{number}") for ndim in ndims}
    selects = Rule(L2, ndim=f" {comparison} {number} ").selects(one)
    assert selects is (expected.pop() if len(expected) == 1 else None)


def test_dimensions_of_a_list_are_any_of_them():
    slots = [slot("a/kernel", (2,) * ndim) for ndim in range(6)]
    assert [Rule(L2, ndim=[4, "<=1"]).matches(one) for one in slots] == [1, 1, 0, 0, 1, 0]


def test_a_weight_of_no_dimension_is_no_weight_of_unknown_shape():
    assert Rule(L2, ndim="<=1").selects(slot("a/scale", ())) is True
    assert Rule(L2, ndim="<=1").selects(slot("a/scale")) is None


def test_the_argument_of_activities_has_no_dimensions():
    activity = slot("a/activity")
    assert [Rule(L2, ndim=n).selects(activity) for n in (0, ">=0", "<=1")] == [False] * 3


def attention():
    inputs = keras.Input((4, 6))
    x = layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def test_biases_of_attention_have_two_dimensions_and_are_told_apart_by_role():
    model = attention()
    kernels = {"attention/kernel", "head/kernel"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = graphwd.plan(model, Rule(regularizers.L2(1e-4), **MATRICES))
        assert {edit.path for edit in plan} == kernels
        assert not plan.notes
    with pytest.warns(graphwd.UndecidedSlotWarning, match=r"attention/bias.* 1 and 2 dimensions"):
        plan = graphwd.plan(model, Rule(regularizers.L2(1e-4), ndim=">=2"))
    assert {edit.path for edit in plan} == kernels
    assert "select it by role or path, too" in plan.notes[0]


def test_a_later_rule_that_can_tell_decides():
    slots = [slot("a/bias", (2, 2), (2,)), slot("b/kernel")]
    undecided = Rule(L2, ndim=">=2")
    edits, _, told = decide(Policy([undecided]), slots)
    assert [edit.after for edit in edits] == [None, None]
    assert [edit.rule for edit in edits] == [None, None]
    assert len(told) == 2
    assert "b/kernel is not known" in told[0]

    def open_questions(*rules):
        return len(decide(Policy(rules), slots)[-1])

    assert not open_questions(undecided, Rule(None))
    assert not open_questions(Rule(L2), undecided), "either way it gets L2"
    assert not open_questions(Rule(None, ndim="<=1")), "either way it has none"
    assert open_questions(Rule(L2), undecided, Rule(None, ndim=1)) == 2


class Unknown(layers.Layer):
    """A layer whose kernel may have any shape."""

    def __init__(self, kernel_regularizer=None, **more):
        super().__init__(**more)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)

    def build(self, shape):
        self.kernel = self.add_weight(
            shape=(shape[-1], 2), name="kernel", regularizer=self.kernel_regularizer
        )

    def call(self, x):
        return x @ self.kernel

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_regularizer": regularizers.serialize(self.kernel_regularizer),
        }


def test_a_shape_that_is_not_known_is_said_and_not_guessed():
    unbuilt = keras.Sequential([layers.Dense(3, name="own"), Unknown(name="unknown")])
    with pytest.warns(graphwd.UndecidedSlotWarning, match="unknown/kernel is not known"):
        plan = graphwd.plan(unbuilt, regularizers.L2(1e-4))
    assert [edit.path for edit in plan] == ["own/kernel"]
    assert any("build the model first" in note for note in plan.notes)
    unbuilt.build((None, 4))
    assert [edit.role for edit in graphwd.plan(unbuilt, regularizers.L2(1e-4))] == ["kernel"] * 2


def test_files_have_dimensions(tmp_path):
    model = attention()
    policy = Policy([Rule(regularizers.L2(1e-4), ndim=3), Rule(regularizers.L2(1e-3), ndim=2)])
    policy = Policy([*policy, Rule(None, roles="bias")])
    live = {edit.path: edit.after for edit in graphwd.plan(model, policy)}
    assert len(live) == 2
    for suffix in ("keras", "h5"):
        path = tmp_path / f"model.{suffix}"
        model.save(path)
        assert {edit.path: edit.after for edit in graphwd.plan(path, policy)} == live
        target = tmp_path / f"target.{suffix}"
        graphwd.rewrite_file(path, target, policy)
        assert graphwd.verify(path, target, policy).ok
        assert not graphwd.verify(path, path, policy).ok
    loaded = keras.saving.load_model(target)
    assert oracle.variable_regularizers(loaded) == oracle.variable_regularizers(
        graphwd.rewrite(model, policy)
    )


SEQUENCES = [layers.LSTM(2), layers.GRU(2), layers.GRU(2, reset_after=False), layers.SimpleRNN(2)]
KNOWN = [
    (layers.Dense(2), (3,)),
    (layers.Embedding(5, 2), (3,)),
    *((layer, (4, 3)) for layer in SEQUENCES),
    (layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"), (4, 3)),
    *((kind(2, 3), (9, 3)) for kind in (layers.Conv1D, layers.Conv1DTranspose)),
    (layers.SeparableConv1D(2, 3), (9, 3)),
    (layers.DepthwiseConv1D(3), (9, 3)),
    *((kind(2, 3), (9, 9, 3)) for kind in (layers.Conv2D, layers.Conv2DTranspose)),
    (layers.SeparableConv2D(2, 3), (9, 9, 3)),
    (layers.DepthwiseConv2D(3), (9, 9, 3)),
    *((kind(2, 3), (9, 9, 9, 3)) for kind in (layers.Conv3D, layers.Conv3DTranspose)),
    (layers.ConvLSTM1D(2, 3), (4, 9, 3)),
    (layers.ConvLSTM2D(2, 3), (4, 9, 9, 3)),
    (layers.BatchNormalization(), (3,)),
    (layers.GroupNormalization(1), (3,)),
    (layers.LayerNormalization(), (3,)),
    (layers.PReLU(), (3, 4)),
]


@pytest.mark.parametrize(("layer", "shape"), KNOWN, ids=lambda value: getattr(value, "name", ""))
def test_known_dimensions_are_those_of_the_built_layer(layer, shape):
    model = keras.Sequential([keras.Input(shape), layer])
    told = 0
    for one in survey.survey(model).slots:
        known = known_ndim(type(layer).__name__, layer.get_config(), one.role)
        told += known is not None
        assert known is None or {known} == set(map(len, one.shapes)), one.path
    assert told or isinstance(layer, (layers.LayerNormalization, layers.PReLU))


# --- multiples ------------------------------------------------------------------------------------


MULTIPLES = st.just(0.0) | st.floats(1e-3, 100)


@given(MULTIPLES, MULTIPLES, st.floats(1e-9, 1))
def test_a_multiple_is_what_earlier_rules_gave_times_that(one, other, strength):
    slots = [slot("a/kernel", (2, 2)), slot("b/kernel", (2, 2)), slot("b/bias", (2,))]
    policy = [
        Rule(regularizers.L2(strength), roles="kernel"),
        Rule(graphwd.times(one), paths="b/*"),
        Rule(graphwd.times(other)),
    ]
    first, second, bias = factors(policy, slots)
    assert first == (pytest.approx(strength * other) if other else None)
    assert second == (pytest.approx(strength * one * other) if one * other else None)
    assert bias is None


def test_a_multiple_of_each_class():
    given = [
        regularizers.L1(0.5),
        regularizers.L1L2(0.5, 0.25),
        regularizers.OrthogonalRegularizer(0.5, mode="columns"),
        {"class_name": "L1L2", "config": {"l1": 0.0, "l2": 0.5}},
    ]
    for one in given:
        plan = make_plan([slot("a/kernel", (2, 2))], Policy([Rule(one), Rule(graphwd.times(2))]))
        (edit,) = plan
        made = keras.regularizers.get(dict(edit.after))
        values = keras.ops.convert_to_tensor([[1.0, -2.0], [0.5, 3.0]])
        before = keras.regularizers.get(one)
        assert float(made(values)) == pytest.approx(2 * float(before(values)))
    with pytest.raises(graphwd.PolicyError, match=r"X\(l2=1\) can't be multiplied by 2"):
        decide(Policy([Rule(CUSTOM), Rule(graphwd.times(2))]), [slot("a/kernel", (2, 2))])


def test_tables_and_the_legend_say_what_a_multiple_is():
    rules = [Rule(L2), Rule(graphwd.times(0.5), paths="a/*"), Rule(None, paths="c/*")]
    slots = [slot("a/kernel", (2, 2)), slot("b/kernel", (2, 2)), slot("c/kernel", (2,), held=L2)]
    plan = make_plan(slots, Policy(rules))
    (table,) = [table for table in plan.tables() if table.title.startswith("Rules")]
    gives = next(column.cells for column in table.columns if column.header == "gives")
    assert gives == ("L2(0.0001)", "times 0.5", "none")
    labels = {key.mark: key.label for key in page.Marks(plan).legend()}
    assert labels["p1"] == "rule 2: times 0.5"
    assert "p2" not in labels, "what is removed has a mark of its own"


def test_what_a_model_holds_already_is_not_multiplied():
    held = slot("a/kernel", (2, 2), held=L2)
    with pytest.warns(graphwd.UnmatchedRuleWarning, match=r"Rule 1 \(everything\) multiplies noth"):
        plan = make_plan([held], Policy([Rule(graphwd.times(0.5))]))
    assert not plan.edits
    policy = Policy([Rule(L2), Rule(graphwd.times(0.5))])
    once = make_plan([held], policy).slots[0].after
    again = make_plan([slot("a/kernel", (2, 2), held=once)], policy)
    assert not again.edits, "the same policy twice is the same as once"


def test_a_rewritten_model_has_the_multiple(tmp_path):
    inputs = keras.Input((3,))
    x = layers.Dense(3, name="backbone")(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    policy = Policy(
        [
            Rule(graphwd.weight_decay(1e-2), **MATRICES),
            Rule(graphwd.times(0.1), paths="backbone/*"),
        ]
    )
    policy.save(tmp_path / "policy.toml")
    rewritten = graphwd.rewrite(model, tmp_path / "policy.toml")
    assert graphwd.verify(model, rewritten, policy).ok
    kernels = {layer.name: np.asarray(layer.kernel) for layer in model.layers[1:]}
    expected = [5e-4 * np.sum(kernels["backbone"] ** 2), 5e-3 * np.sum(kernels["head"] ** 2)]
    assert [float(loss) for loss in rewritten.losses] == pytest.approx(expected, rel=1e-5)
    assert "times 0.1" in repr(policy)


# --- depth ----------------------------------------------------------------------------------------


def decayed(paths, blocks, base=0.5, rules=()):
    slots = [slot(path, (2,) if path.endswith(("bias", "gamma")) else (2, 2)) for path in paths]
    policy = [Rule(regularizers.L2(1.0), **MATRICES), *rules]
    policy.append(Rule(graphwd.times(base, blocks=blocks)))
    found = factors(policy, slots)
    return {
        path: None if factor is None else round(math.log(factor, base))
        for path, factor in zip(paths, found, strict=True)
    }


def test_depth_counts_from_the_top():
    paths = ["stem/kernel"]
    paths += [f"stack/block_{n}/{role}" for n in range(12) for role in ("kernel", "bias")]
    paths += ["norm/gamma", "head/kernel"]
    found = decayed(paths, "*block_#/*")
    assert found["head/kernel"] == 0
    assert found["norm/gamma"] is None
    assert [found[f"stack/block_{n}/kernel"] for n in range(12)] == list(range(12, 0, -1))
    assert found["stem/kernel"] == 13


def test_without_a_head_the_last_block_is_the_top():
    paths = ["stem/kernel", "block_1/kernel", "block_2/kernel", "norm/gamma"]
    assert list(decayed(paths, "block_#*").values()) == [2, 1, 0, None]


def test_what_lies_between_blocks_counts_with_the_next():
    paths = ["stem/kernel", "stage_0_block_0/kernel", "stage_0_block_1/kernel", "down_0/kernel"]
    paths += ["stage_1_block_0/kernel", "stage_1_block_1/kernel", "head/kernel"]
    assert list(decayed(paths, "stage_#_block_#/*").values()) == [5, 4, 3, 2, 2, 1, 0]


def test_numbers_are_whole_and_the_first_pattern_counts():
    paths = ["x/block_9/kernel", "x/block_10/kernel", "y/layer2_11/kernel", "block_12_3/kernel"]
    assert list(decayed(paths, ["*block_#/*", "*_#/*"]).values()) == [2, 1, 0, 3]


def test_a_second_stack_begins_at_the_bottom():
    paths = [f"{tower}/{part}/kernel" for tower in "ab" for part in ("in", "block_0", "block_1")]
    found = decayed(paths, "*block_#*")
    assert [found[path] for path in paths] == [2, 1, 0] * 2


def test_other_multiples_go_with_it():
    paths = ["block_0/kernel", "block_1/kernel"]
    rules = [Rule(graphwd.times(0.25), paths="block_0/*")]
    assert list(decayed(paths, "block_#*", rules=rules).values()) == [3, 0]


def test_blocks_that_are_not_there_are_a_warning():
    policy = Policy([Rule(L2), Rule(graphwd.times(0.5, blocks="*blok_#*"))])
    with pytest.warns(graphwd.UnmatchedRuleWarning, match=r"number of no block: .*\*blok_#\*"):
        plan = make_plan([slot("block_1/kernel", (2, 2))], policy)
    assert plan.edits[0].after["config"] == {"l2": 1e-4}


# --- what is expected -----------------------------------------------------------------------------


def test_a_rule_selects_the_number_of_weights_that_it_expects(tmp_path):
    model = attention()
    right = Rule(regularizers.L2(1e-4), roles="kernel", expect=5)  # four of them in one slot
    assert len(graphwd.rewrite(model, right).losses) == 5
    wrong = Rule(regularizers.L2(1e-4), roles="kernel", paths="attention/*", expect=5)
    model.save(tmp_path / "model.keras")
    message = r"Rule 1 \(roles: kernel, paths: attention/\*\) expects 5 weights.*selects 4 \(att"
    for call in (
        lambda: graphwd.rewrite(model, wrong),
        lambda: graphwd.plan(model, wrong),
        lambda: graphwd.plan(tmp_path / "model.keras", wrong),
        lambda: graphwd.decouple(model, wrong, "adamw"),
        lambda: graphwd.rewrite_file(tmp_path / "model.keras", tmp_path / "new.keras", wrong),
    ):
        with pytest.raises(graphwd.PolicyError, match=message):
            call()
    assert model.losses == []
    assert not (tmp_path / "new.keras").exists()


def test_what_is_expected_of_unknown_weights_can_not_be_counted():
    policy = Policy([Rule(L2, roles="kernel", expect=1)])
    with pytest.raises(graphwd.PolicyError, match="a/kernel stands for is not known"):
        decide(policy, [slot("a/kernel")])
    assert decide(policy, [slot("a/kernel")], expectations=False)
    decide(Policy([Rule(L2, expect=1)]), [slot("a/kernel", (2, 2)), slot("a/activity")])
    with pytest.raises(graphwd.PolicyError, match="expects 3 weights of m but selects 0;"):
        decide(Policy([Rule(L2, roles="x", expect=3)]), [slot("a/kernel", (2, 2))], "m")


def test_an_overruled_rule_selects_all_the_same():
    policy = Policy([Rule(L2, expect=2), Rule(None, paths="a/*", expect=1)])
    decide(policy, [slot("a/kernel", (2, 2)), slot("b/kernel", (2, 2))])


# --- one record -----------------------------------------------------------------------------------


@pytest.mark.parametrize("live", [True, False])
def test_dormant_means_a_penalty_on_frozen_weights_wherever_it_is_said(live, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(2, kernel_regularizer="l2", name="loses", trainable=False),
            layers.Dense(2, name="gets", trainable=False),
            layers.Dense(2, name="awake"),
        ]
    )
    model.save(tmp_path / "model.keras")
    rules = [Rule(L2, paths=["gets/kernel", "awake/kernel"]), Rule(None, paths="loses/kernel")]
    plan = graphwd.plan(model if live else tmp_path / "model.keras", rules)
    expected = {"loses/kernel": False, "gets/kernel": True, "awake/kernel": False}
    data = plan.to_dict()
    assert {edit.path: edit.dormant for edit in plan} == expected
    assert {edit["path"]: edit["dormant"] for edit in data["edits"]} == expected
    slots = {slot["path"]: slot for slot in data["slots"]}
    assert {path: slots[path]["dormant"] for path in expected} == expected
    assert [slots[path]["frozen"] for path in expected] == [True, True, False]
    assert data["summary"]["whole"]["dormant"] == 1
    inspected = graphwd.inspect(model if live else tmp_path / "model.keras")
    assert [edit.path for edit in inspected.slots if edit.dormant] == ["loses/kernel"]
    assert not inspected.edits


def test_an_edit_shows_what_it_is():
    (edit,) = make_plan([slot("a/kernel", (2, 2), held=L2)], Policy([Rule(None)]))
    assert repr(edit) == (
        "Edit(path='a/kernel', role='kernel', layer='Layer', "
        "before={'class_name': 'L2', 'config': {'l2': 0.0001}}, after=None, "
        "portable=True, dormant=False)"
    )
    assert (edit.rule, edit.changes, edit.carried, edit.unreached) == (0, True, False, False)


# --- what is passed over --------------------------------------------------------------------------


def test_large_matrices_that_no_rule_decides_on_are_named():
    slots = [
        slot("a/kernel", (8, 8)),
        slot("b/kernel", (8, 4)),
        slot("moe/experts_gate", (4, 8, 8)),
        slot("moe/experts_bias", (4, 64)),
        slot("tokens/embeddings", (99, 8)),
        slot("norm/scale", (800,)),
        slot("small/gate", (2, 2)),
    ]
    note = "No rule decides on 1 large matrices, 72% of the parameters"
    plan = make_plan(slots, Policy([Rule(L2, roles="kernel")]))
    assert [text for text in plan.notes if note in text and "moe/experts_gate;" in text]
    assert not make_plan(slots, Policy([Rule(L2, **MATRICES)])).notes
    decided = [Rule(L2, roles="kernel"), Rule(None, roles="experts*")]
    assert not make_plan(slots, Policy(decided)).notes
    assert not make_plan(slots, Policy([Rule(None, roles="kernel")])).notes
    assert not make_plan(slots, Policy([Rule(L2, roles="embeddings")])).notes


# --- decoupled strengths --------------------------------------------------------------------------


def test_a_decoupled_strength_as_a_penalty_is_a_warning(tmp_path):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2, name="head")(inputs))
    policy = Policy([Rule(graphwd.weight_decay(0.05), roles="kernel")], mechanism="decoupled")
    with pytest.warns(graphwd.DecoupledStrengthWarning, match=r"far too strong with SGD"):
        rewritten = graphwd.rewrite(model, policy)
    model.save(tmp_path / "model.keras")
    with pytest.warns(graphwd.DecoupledStrengthWarning, match=r"graphwd\.decouple"):
        graphwd.rewrite_file(tmp_path / "model.keras", tmp_path / "new.keras", policy)
    assert any("decoupled" in note for note in graphwd.plan(model, policy).notes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graphwd.rewrite(model, Policy(policy.rules))
        graphwd.rewrite(rewritten, policy)  # nothing is added
        graphwd.rewrite(model, Policy([Rule(None)], mechanism="decoupled"))
        graphwd.plan(model, policy)
        graphwd.decouple(model, policy, keras.optimizers.AdamW(1e-3))
        graphwd.rewrite(model, Policy.recipe("convnext", weight_decay=1e-4))


# --- names that hold ------------------------------------------------------------------------------


class Unnamed(layers.Layer):
    """A layer that leaves the names of its weights to Keras."""

    def build(self, shape):
        self.first = self.add_weight(shape=(shape[-1],))
        self.named = self.add_weight(shape=(2,), name="scale")
        self.second = self.add_weight(shape=(shape[-1],))

    def call(self, x):
        return x * self.first + self.second


class Nested(layers.Layer):
    """A layer that leaves the names of its sublayers to Keras, but for one."""

    def build(self, shape):
        self.inner = [layers.Dense(3), layers.Dense(3, name="own"), Unnamed(), layers.Dense(3)]
        for layer in self.inner:
            layer.build(shape)

    def call(self, x):
        for layer in self.inner:
            x = layer(x)
        return x


PATHS = [
    *("nested/dense/kernel", "nested/dense/bias", "nested/own/kernel", "nested/own/bias"),
    *("nested/unnamed/variable", "nested/unnamed/scale", "nested/unnamed/variable_1"),
    *("nested/dense_1/kernel", "nested/dense_1/bias"),
]


def nested():
    inputs = keras.Input((3,))
    return keras.Model(inputs, Nested(name="nested")(inputs))


def test_names_do_not_depend_on_what_was_built_before():
    def build():
        inputs = keras.Input((3,))
        x = Unnamed(name="one")(inputs)
        return keras.Model(inputs, Unnamed(name="two")(x))

    roles = ["variable", "scale", "variable_1"] * 2
    assert [one.path for one in survey.survey(nested()).slots if one.shapes] == PATHS
    assert [one.path for one in survey.survey(nested()).slots if one.shapes] == PATHS
    for _ in range(2):
        model = build()
        found = survey.survey(model).slots
        assert [one.role for one in found if one.role != "activity"] == roles
    policy = Rule(regularizers.L2(0.5), paths="two/variable_1", expect=1)
    rewritten = graphwd.rewrite(model, policy)
    assert len(rewritten.losses) == 1
    assert rewritten.get_layer("two").second.regularizer is not None
