"""Tables and summaries: repeated layers as one line, right sums, nothing that steers a terminal."""

import contextlib
import dataclasses
import io
import json
import os
import pty
import re
import sys
import time

import pytest

from graphwd.cli import program, terminal
from graphwd.graph.slots import Slot
from graphwd.plans import page, summary, tables
from graphwd.plans.plan import Plan, make_plan
from graphwd.policy import regularizers
from graphwd.policy.policies import Policy, Rule

L2 = regularizers.l2(1e-4)


def slot(path, layer="Dense", *, held=None, shape=(2, 3), **more):
    pointers = more.pop("pointers", ((path,),))
    shapes = () if shape is None else (shape,)
    role = path.rsplit("/", 1)[-1]
    return Slot(path, role, (layer,), held, pointers, shapes=shapes, **more)


def state(*slots):
    return make_plan(slots, None, source="it")


def patterns(*paths):
    return [one.pattern for one in summary.group(state(*map(slot, paths)).slots)]


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
    slots = [slot(path) for path in paths]
    for one in summary.group(state(*slots).slots):
        rule = Rule(None, paths=one.pattern)
        assert all(rule.matches(edit.slot) for edit in one.edits)


def test_layers_that_fare_differently_are_lines_of_their_own():
    slots = [slot("d_1/kernel"), slot("d_2/kernel", held=L2), slot("d_3/kernel", frozen=True)]
    assert len(summary.group(state(*slots).slots)) == 3


def test_sums_by_role_and_rule():
    slots = [
        slot("a/kernel", shape=(10, 10)),
        slot("b/kernel", shape=(10, 20), frozen=True),
        slot("c/kernel", shape=(50,), pointers=()),
        slot("d/scale", shape=(25,), pointers=()),
        slot("a/bias", shape=(25,)),
        slot("a/activity", shape=None),
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


def measured(*values):
    """A measure that gives the slots of a plan the values of penalties now and as planned."""
    return lambda edits: list(values)


def test_values_of_penalties_by_role_and_rule():
    slots = [
        slot("a/kernel", held=L2),
        slot("b/kernel", frozen=True),
        slot("c/kernel"),
        slot("d/kernel"),
        slot("e/kernel"),
        slot("a/bias", held=L2),
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
    plan = state(slot("a/kernel", held=L2), slot("b/kernel", held=regularizers.l2(1.0)))
    plan = dataclasses.replace(plan, measure=measured((3.0, 3.0), (1.0, 1.0)))
    assert [one["penalty"] for one in plan.to_dict()["summary"]["penalties"]] == [3, 1]
    text = str(plan)
    assert "as planned" not in text
    assert "75.0% a/kernel" in text
    assert "  L2(0.0001)      3  75.0%" in text


def test_a_value_that_is_not_known_makes_no_sum():
    plan = make_plan(
        [slot("a/kernel"), slot("b/kernel"), slot("a/bias")],
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
    plan = make_plan([slot("a/kernel")], Policy([Rule(L2)]))
    assert "Penalty by" not in str(plan)
    assert sums(plan, "roles")["kernel"]["penalty"] is None


def test_a_look_at_a_plan_measures_once():
    calls = []
    plan = make_plan([slot("a/kernel")], Policy([Rule(L2)]), measure=lambda d: calls.append(d))
    assert not calls
    plan = dataclasses.replace(plan, measure=lambda d: calls.append(d) or [(0.0, 1.0)])
    for number, look in enumerate((str, Plan.to_dict, Plan._repr_html_, page.render), start=1):
        look(plan)
        assert len(calls) == number


def test_a_number_that_is_not_known_of_all_is_not_given():
    slots = [slot("a/kernel"), slot("b/kernel", shape=None), slot("c/bias")]
    plan = make_plan(slots, Policy([Rule(L2, roles="kernel")]))
    assert sums(plan, "roles")["kernel"]["parameters"] is None
    assert sums(plan, "roles")["bias"]["parameters"] == 6
    assert sums(plan, "roles")["bias"]["share"] is None
    assert "share" not in str(plan)


def test_a_file_without_numbers_has_no_empty_columns():
    text = str(make_plan([slot("a/kernel", shape=None)], Policy([Rule(L2)])))
    assert "parameters" not in text
    assert "dormant" not in text
    assert "a/kernel" in text
    assert "L2(0.0001)" in text


def test_a_plan_is_text_html_and_json():
    slots = [slot("a_1/kernel"), slot("a_2/kernel"), slot("b/kernel", held=L2)]
    plan = make_plan(slots, Policy([Rule(L2, paths="a*")]), source="model 'm'", notes=["Look."])
    text = str(plan)
    assert text.startswith("2 of the 3 slots of model 'm' get another regularizer\n")
    assert "a_*/kernel" in text
    assert text.endswith("Note: Look.")
    page = plan._repr_html_()
    assert page.count("<table>") == page.count("</table>") == 3
    assert "a_*/kernel" in page
    data = json.loads(json.dumps(plan.to_dict()))
    assert [edit["path"] for edit in data["edits"]] == ["a_1/kernel", "a_2/kernel"]
    assert [one["rule"] for one in data["slots"]] == [1, 1, None]
    assert data["slots"][0]["after"] == L2
    assert data["notes"] == ["Look."]


def test_what_is_penalised_now():
    plan = state(slot("a/kernel", held=L2), slot("a/bias"), slot("a/activity", shape=None))
    assert str(plan).startswith("1 of the 3 slots of it hold a regularizer\n")
    assert "a/activity" not in str(plan)
    assert "planned" not in str(plan)


def test_an_empty_model_has_a_table():
    assert "0 of the 0 slots" in str(state())
    assert "<p>" in state()._repr_html_()


def test_names_from_a_file_can_not_steer_a_terminal_or_a_page(capsys):
    path = "a\x1b[2J\n<script>/kernel"
    plan = make_plan([slot(path)], Policy([Rule(L2)]), source="x\x1b]0;y\x07", notes=["\x1b[0m"])
    assert "\x1b" not in str(plan)
    assert r"a\x1b[2J\n<script>/kernel" in str(plan)
    assert "<script>" not in plan._repr_html_()
    terminal.show_facts("x\x1b", terminal.summarize(plan))
    assert "\x1b" not in capsys.readouterr().out


def test_a_table_is_aligned():
    table = tables.make_table("T", {"name": ["a", "bbb"], "n": [5, 12345], "no": ["", ""]})
    assert table.text() == "T\n  name       n\n  a          5\n  bbb   12,345"


def test_thousands_of_layers_make_a_short_table():
    slots = [slot(f"block_{i}/conv_{i % 7}/kernel") for i in range(20_000)]
    assert len(str(make_plan(slots, Policy([Rule(L2)]))).splitlines()) < 20


def test_summary_says_what_a_user_should_know():
    slots = [slot("a/kernel", frozen=True), slot("b/kernel", pointers=()), slot("c/bias")]
    facts = dict(terminal.summarize(make_plan(slots, Policy([Rule(L2, roles="kernel")]))))
    assert facts["edited"] == "2 of 3 slots: 2 kernel"
    assert "12 parameters (66.7% of those that can be)" in facts["penalised"]
    assert facts["dormant"].startswith("1 (frozen")
    assert facts["carried"].startswith("1 (no config holds these: import graphwd")
    assert facts["unreached"] == "0"


def test_progress_is_silent_when_it_is_no_terminal(capfd):
    with terminal.progress("working", "resting") as next_step:
        next_step()
    assert capfd.readouterr() == ("", "")


def test_progress_in_a_terminal_tells_how_many_steps_there_are(monkeypatch):
    leader, follower = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(follower, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        shown = ""
        with terminal.progress("working", "resting") as next_step:
            for word in ("working", "resting"):
                deadline = time.monotonic() + 20
                while word not in shown and time.monotonic() < deadline:
                    shown += os.read(leader, 1 << 16).decode(errors="replace")
                next_step()
            print("printed by Keras")
            program.say("something")
        os.set_blocking(leader, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                shown += os.read(leader, 1 << 16).decode(errors="replace")
    os.close(leader)
    assert "0/2" in shown
    assert "1/2" in shown
    for line in ("printed by Keras", "graphwd: something"):
        assert f"\r\x1b[2K{line}\r\n" in shown  # above the bar, not behind it


@pytest.mark.parametrize("terminals", [True, False])
def test_facts_are_wrapped_in_a_terminal_only(monkeypatch, terminals):
    screen = Terminal() if terminals else io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "80")
    words = " ".join(f"word{number}" for number in range(30))
    terminal.show_facts("title", [("edited", words), ("a", "b")])
    lines = screen.getvalue().splitlines()
    assert (lines[0], lines[-1]) == ("title", "  a       b")
    assert lines[1].startswith("  edited  word0 word1 ")
    assert all(line.startswith("          word") for line in lines[2:-1])
    assert " ".join(" ".join(lines[1:-1]).split()) == f"edited {words}"
    assert (max(map(len, lines)) <= 80) == terminals
    assert (len(lines) > 3) == terminals


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_tables_in_a_terminal_have_every_cell(monkeypatch):
    plan = make_plan([slot("some[bold]_1/kernel")], Policy([Rule(L2)]), notes=["Look."])
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.show_plan(plan)
    assert "some[bold]_1/kernel" in screen.getvalue()
    assert "L2(0.0001)" in screen.getvalue()
    assert "Note: Look." in screen.getvalue()
    assert "\x1b[3" not in screen.getvalue()


@pytest.mark.parametrize("width", [80, 100, 200])
def test_every_table_fits_a_terminal_and_nothing_is_lost(width, monkeypatch):
    long = "the_encoder/transformer_block_*/self_attention_of_many_heads/kernel"
    slots = [slot(long.replace("*", str(n)), "MultiHeadAttention") for n in (1, 2)]
    slots += [slot("a/bias", shape=(123456789,), held=L2, frozen=True)]
    plan = make_plan(
        slots,
        Policy([Rule(regularizers.l2(2e-4))]),
        notes=["Look."],
        measure=measured((0.0, 1.0), (0.0, 2.0), (0.125, 1234567.0)),
    )
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.show_plan(plan)
    lines = re.sub(r"\x1b\[[\d;]*m", "", screen.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for number in ("123,456,789", "1.235e+06", "L2(0.0002)", "dormant", "66.7% ", "33.3% "):
        assert number in text
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    if width == 200:
        assert any(long in line for line in lines)
    start = next(number for number, line in enumerate(lines) if line.startswith("the_"))
    folded = "".join(line.split(" ")[0] for line in lines[start : start + 12])
    assert folded.startswith(long)
