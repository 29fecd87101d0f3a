"""Rewriting again: a penalty that stays keeps its start, and others start anew."""

import pytest
from keras import regularizers

import graphwd
from tests.support.started import KERNELS, by_hand, network, penalised, trained


@pytest.mark.parametrize("in_place", [False, True])
def test_rewriting_again_keeps_a_start_that_no_rule_changes(in_place):
    model, start = trained()
    expected = by_hand(model, start)
    again = graphwd.rewrite(model, graphwd.Rule("l1", roles="bias"), in_place=in_place)
    found = [v for v in again.trainable_variables if isinstance(v.regularizer, graphwd.L2SP)]
    assert sum(float(v.regularizer(v)) for v in found) == pytest.approx(expected, rel=1e-5)
    same = graphwd.rewrite(again, KERNELS, in_place=in_place)
    found = [v for v in same.trainable_variables if isinstance(v.regularizer, graphwd.L2SP)]
    assert sum(float(v.regularizer(v)) for v in found) == pytest.approx(expected, rel=1e-5)
    other = graphwd.rewrite(
        same, graphwd.Rule(graphwd.L2SP(0.25), roles="kernel"), in_place=in_place
    )
    assert sum(float(v.regularizer(v)) for v in penalised(other)) == 0.0
    none = graphwd.rewrite(other, graphwd.Rule(None), in_place=in_place)
    assert not none.losses
    assert {type(layer).__module__.split(".")[0] for layer in none.layers} == {"keras"}
    assert len(none.variables) == len(network().variables)


def test_a_rule_of_the_head_and_one_of_the_backbone():
    policy = [
        graphwd.Rule(graphwd.L2SP(1e-2), paths="inner/*", ndim=">=2"),
        graphwd.Rule(regularizers.L2(1e-2), paths="last/*", ndim=">=2"),
    ]
    model = graphwd.rewrite(network(), policy)
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    kinds = {v.path.split("/")[-2]: type(v.regularizer) for v in kernels}
    assert kinds["dense"] is graphwd.L2SP
    assert kinds["last"] is regularizers.L2
