"""Edits: what the rules of a policy give to each slot, and what they can't decide."""

import warnings

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers, regularizers

import graphwd
from graphwd.plans.edits import decide
from graphwd.plans.plan import make_plan
from graphwd.policy.policies import Policy, Rule
from tests.support import oracle
from tests.support.slots import L2, slot

MATRICES = {"ndim": ">=2", "roles": "!*bias*"}


def factors(policy, slots):
    """What L2(1) becomes on each slot, `None` without a regularizer."""
    edits, *_ = decide(Policy.coerce(policy), slots)
    return [e.after and next(iter(e.after["config"].values())) for e in edits]


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


def test_other_multiples_go_with_it():
    slots = [slot(f"{path}/kernel", (2, 2)) for path in ("block_0", "block_1", "block_2")]
    slots += [slot("block_2/bias", (2,)), slot("head/bias", (2,))]
    policy = [
        Rule(regularizers.L2(1.0), **MATRICES),
        Rule(graphwd.times(0.25), paths="block_0/*"),
        Rule(graphwd.times(0.5, blocks="block_#*")),
    ]
    assert factors(policy, slots) == [0.0625, 0.5, 1.0, None, None]


def test_blocks_that_are_not_there_are_a_warning():
    policy = Policy([Rule(L2), Rule(graphwd.times(0.5, blocks="*blok_#*"))])
    with pytest.warns(graphwd.UnmatchedRuleWarning, match=r"number of no block: .*\*blok_#\*"):
        plan = make_plan([slot("block_1/kernel", (2, 2))], policy)
    assert plan.edits[0].after["config"] == {"l2": 1e-4}


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


def test_an_edit_shows_what_it_is():
    held = {"class_name": "L2", "config": {"l2": 1e-4}}
    (edit,) = make_plan([slot("a/kernel", (2, 2), held=held)], Policy([Rule(None)]))
    assert repr(edit) == (
        "Edit(path='a/kernel', role='kernel', layer='Layer', "
        "before={'class_name': 'L2', 'config': {'l2': 0.0001}}, after=None, "
        "portable=True, dormant=False)"
    )
    assert (edit.rule, edit.changes, edit.carried, edit.unreached) == (0, True, False, False)


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
