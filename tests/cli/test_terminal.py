"""What commands print: facts and tables that fit, and progress only where it shows."""

import contextlib
import dataclasses
import io
import os
import pty
import re
import sys
import time

import pytest

from graphwd.cli import program, terminal
from graphwd.plans.plan import make_plan
from graphwd.policy import regularizers
from graphwd.policy.policies import Policy, Rule
from tests.support.slots import L2, hostile, measured, sized


def test_names_from_a_file_can_not_steer_a_terminal(capsys):
    terminal.show_facts("x\x1b", terminal.summarize(hostile()))
    assert "\x1b" not in capsys.readouterr().out


def test_summary_says_what_a_user_should_know():
    slots = [sized("a/kernel", frozen=True), sized("b/kernel", pointers=()), sized("c/bias")]
    facts = dict(terminal.summarize(make_plan(slots, Policy([Rule(L2, roles="kernel")]))))
    assert facts["edited"] == "2 of 3 slots: 2 kernel"
    assert "12 parameters (66.7% of those that can be)" in facts["penalised"]
    assert facts["dormant"].startswith("1 (frozen")
    assert facts["carried"].startswith("1 (no config holds these: import graphwd")
    assert facts["unreached"] == "0"


def test_weights_of_a_file_that_no_slot_reaches_count_as_on_the_page():
    made = make_plan([sized("a/kernel"), sized("b/bias")], Policy([Rule(L2, roles="kernel")]))
    hidden = dataclasses.replace(made, hidden=made.slots[0].slot.parameters * 2)
    assert "(25.0% of those that can be)" in dict(terminal.summarize(hidden))["penalised"]
    assert hidden.summary().whole().share == 0.5
    assert hidden.summary().by_role()[0].share == 0.25


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
    plan = make_plan([sized("some[bold]_1/kernel")], Policy([Rule(L2)]), notes=["Look."])
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
    slots = [sized(long.replace("*", str(n)), "MultiHeadAttention") for n in (1, 2)]
    slots += [sized("a/bias", shape=(123456789,), held=L2, frozen=True)]
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
