"""Summaries: repeated layers as one line, right sums, and values only where they are known."""

import dataclasses

import pytest

import graphwd
from graphwd.plans import page, summary
from graphwd.plans.plan import make_plan
from graphwd.policy import regularizers
from graphwd.policy.policies import Policy, Rule
from tests.support.slots import L2, measured, sized, slot, state


def patterns(*paths):
    return [one.pattern for one in summary.group(state(*map(sized, paths)).slots)]


def sums(plan, what):
    return {one["label"]: one for one in plan.to_dict()["summary"][what]}


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["conv_1/kernel", "conv_2/kernel", "conv_13/kernel"], ["conv_*/kernel"]),
        (["dense/kernel", "dense_1/kernel", "dense_2/kernel"], ["dense*/kernel"]),
        (["a1_b1/kernel", "a1_b2/kernel"], ["a1_b*/kernel"]),
        (["block1_conv1/kernel", "block1_conv2/kernel"], ["block1_conv*/kernel"]),
        (["m_1/conv_1/kernel", "m_2/conv_1/kernel"], ["m_*/conv_1/kernel"]),
        (["conv/kernel", "conv/bias"], ["conv/kernel", "conv/bias"]),
        (["stem/kernel", "head/kernel"], ["stem/kernel", "head/kernel"]),
        (["conv_1/kernel"], ["conv_1/kernel"]),
        (["kernel"], ["kernel"]),
    ],
)
def test_layers_that_differ_in_numbers_are_one_line(paths, expected):
    assert patterns(*paths) == expected


def test_patterns_select_what_they_stand_for():
    paths = ["dense/kernel", "dense_1/kernel", "block1_conv2/kernel", "block2_conv3/kernel"]
    slots = [sized(path) for path in paths]
    for one in summary.group(state(*slots).slots):
        rule = Rule(None, paths=one.pattern)
        assert all(rule.matches(edit.slot) for edit in one.edits)


def test_layers_that_fare_differently_are_lines_of_their_own():
    slots = [sized("d_1/kernel"), sized("d_2/kernel", held=L2), sized("d_3/kernel", frozen=True)]
    assert len(summary.group(state(*slots).slots)) == 3


def test_sums_by_role_and_rule():
    slots = [
        sized("a/kernel", shape=(10, 10)),
        sized("b/kernel", shape=(10, 20), frozen=True),
        sized("c/kernel", shape=(50,), pointers=()),
        sized("d/scale", shape=(25,), pointers=()),
        sized("a/bias", shape=(25,)),
        sized("a/activity", shape=None),
    ]
    policy = Policy([Rule(L2, roles="kernel"), Rule(None, roles="bias")])
    plan = make_plan(slots, policy)
    kernels = sums(plan, "roles")["kernel"]
    assert kernels["slots"] == kernels["penalised"] == kernels["edits"] == 3
    assert (kernels["parameters"], kernels["share"]) == (350, 350 / 400)
    assert (kernels["dormant"], kernels["carried"], kernels["unreached"]) == (1, 1, 0)
    assert sums(plan, "roles")["scale"]["unreached"] == 1
    assert sums(plan, "rules")["roles: kernel"] == {**kernels, "label": "roles: kernel"}
    assert sums(plan, "rules")["roles: bias"]["edits"] == 0
    assert sums(plan, "rules")["no rule: as it is"]["slots"] == 2
    assert sums(plan, "penalties")["L2(0.0001)"]["parameters"] == 350
    shares = [one["share"] for one in plan.to_dict()["summary"]["roles"]]
    assert sum(share for share in shares if share is not None) == pytest.approx(1)


def test_values_of_penalties_by_role_and_rule():
    slots = [
        sized("a/kernel", held=L2),
        sized("b/kernel", frozen=True),
        sized("c/kernel"),
        sized("d/kernel"),
        sized("e/kernel"),
        sized("a/bias", held=L2),
    ]
    policy = Policy([Rule(L2, roles="kernel"), Rule(None, roles="bias")])
    pairs = [(1.0, 1.0), (32.0, 64.0), (0.0, 2.0), (0.0, 4.0), (0.0, 1.0), (0.5, 0.0)]
    plan = make_plan(slots, policy, measure=measured(*pairs))
    kernels = sums(plan, "roles")["kernel"]
    assert (kernels["penalty"], kernels["planned_penalty"]) == (1, 8)
    assert kernels["dormant_penalty"] == 64  # Keras skips it
    assert [one["path"] for one in kernels["largest"]] == ["d/kernel", "c/kernel", "a/kernel"]
    assert [one["penalty"] for one in kernels["largest"]] == [4, 2, 1]
    assert sums(plan, "rules")["roles: kernel"]["planned_penalty"] == 8
    biases = sums(plan, "rules")["roles: bias"]
    assert (biases["penalty"], biases["planned_penalty"], biases["largest"]) == (0.5, 0, [])
    whole = plan.to_dict()["summary"]["whole"]
    assert (whole["penalty"], whole["planned_penalty"]) == (1.5, 8)
    assert [one["penalty"] for one in plan.to_dict()["slots"]] == [one for one, _ in pairs]
    assert [one["planned_penalty"] for one in plan.to_dict()["slots"]] == [two for _, two in pairs]
    for shown in (str(plan), plan._repr_html_()):
        assert "Penalty by rule" in shown
        assert "Penalty by role" in shown
        largest = ("50.0% d/kernel", "25.0% c/kernel", "12.5% a/kernel")
        assert ("<br>" if "<br>" in shown else ", ").join(largest) in shown


def test_values_of_what_is_penalised_now():
    plan = state(sized("a/kernel", held=L2), sized("b/kernel", held=regularizers.l2(1.0)))
    plan = dataclasses.replace(plan, measure=measured((3.0, 3.0), (1.0, 1.0)))
    assert [one["penalty"] for one in plan.to_dict()["summary"]["penalties"]] == [3, 1]
    text = str(plan)
    assert "as planned" not in text
    assert "75.0% a/kernel" in text
    assert "  L2(0.0001)      3  75.0%" in text


def test_a_value_that_is_not_known_makes_no_sum():
    plan = make_plan(
        [sized("a/kernel"), sized("b/kernel"), sized("a/bias")],
        Policy([Rule(L2)]),
        measure=measured((0.0, 1.0), "it is gone", (0.0, 2.0)),
    )
    assert sums(plan, "roles")["kernel"]["planned_penalty"] is None
    assert sums(plan, "roles")["bias"]["planned_penalty"] == 2
    assert plan.to_dict()["slots"][1]["planned_penalty"] is None
    assert "?" in str(plan)
    assert str(plan).endswith(
        "Note: The value of the penalty on b/kernel is not known: it is gone."
    )


def test_a_plan_without_weights_has_no_values():
    plan = make_plan([sized("a/kernel")], Policy([Rule(L2)]))
    assert "Penalty by" not in str(plan)
    assert sums(plan, "roles")["kernel"]["penalty"] is None


def test_a_number_that_is_not_known_of_all_is_not_given():
    slots = [sized("a/kernel"), sized("b/kernel", shape=None), sized("c/bias")]
    plan = make_plan(slots, Policy([Rule(L2, roles="kernel")]))
    assert sums(plan, "roles")["kernel"]["parameters"] is None
    assert sums(plan, "roles")["bias"]["parameters"] == 6
    assert sums(plan, "roles")["bias"]["share"] is None
    assert "share" not in str(plan)


def test_thousands_of_layers_make_a_short_table():
    slots = [sized(f"block_{i}/conv_{i % 7}/kernel") for i in range(20_000)]
    assert len(str(make_plan(slots, Policy([Rule(L2)]))).splitlines()) < 20


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
