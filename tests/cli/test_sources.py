"""Sources: what is written where, what is refused, and that each is looked at once."""

import json
import os
import sys
from collections import Counter
from pathlib import Path

import keras
import pytest

import graphwd
from graphwd.graph.slots import find_slots
from graphwd.live.survey import survey
from graphwd.plans.plan import make_plan
from graphwd.policy.policies import Policy, Rule
from graphwd.policy.regularizers import l2
from tests.support.command_line import fails, invoke, penalties, run

PLAN = ["plan", "a.keras", "--recipe", "vgg"]


@pytest.mark.parametrize("way", [[], ["--live"]])
def test_an_existing_target_needs_force(folder, way):
    (folder / "out.keras").write_bytes(b"precious")
    arguments = ["rewrite", "model.keras", "out.keras", "--recipe", "vgg", *way]
    fails(invoke(*arguments), "exists", "--force")
    assert (folder / "out.keras").read_bytes() == b"precious"
    assert invoke(*arguments, "--force").exit_code == 0
    assert graphwd.verify("model.keras", "out.keras", Policy.recipe("vgg")).ok


@pytest.mark.parametrize("way", [[], ["--live"]])
def test_a_model_may_be_rewritten_in_its_place(folder, way):
    result = invoke("rewrite", "model.keras", "model.keras", "--recipe", "vgg", "--force", *way)
    assert result.exit_code == 0, result.output
    assert len(penalties("model.keras")) == 3


def test_a_failed_proof_writes_nothing_and_returns_1(folder, monkeypatch):
    from graphwd.live.proving import verification

    broken = verification.Report(("conv_1: the strides differ",), {})
    monkeypatch.setattr(verification, "verify_copy", lambda *_, **__: broken)
    result = invoke("rewrite", "model.keras", "out.keras", "--recipe", "vgg", "--live")
    fails(result, "the strides differ", code=1)
    assert not (folder / "out.keras").exists()


def test_portable_refuses_what_is_carried(folder):
    inputs = keras.Input((4, 6))
    x = keras.layers.MultiHeadAttention(1, 2, name="mha")(inputs, inputs)
    model = keras.Model(inputs, keras.layers.RMSNormalization(name="rms")(x))
    graphwd.rewrite(model, graphwd.Rule(keras.regularizers.L2(1e-3))).save("carried.keras")
    policy = Policy([graphwd.Rule(keras.regularizers.L2(1.0), roles="scale")])
    policy.save("scale.toml")
    for way in ([], ["--live"]):
        arguments = ["rewrite", "carried.keras", "out.keras", "--policy", "scale.toml", *way]
        fails(invoke(*arguments, "--portable"), "rms/scale", "carry")
        assert not (folder / "out.keras").exists()
    result = invoke("rewrite", "carried.keras", "out.keras", "--policy", "scale.toml")
    assert "import graphwd before loading" in result.stdout
    assert keras.saving.load_model("out.keras").get_layer("rms").scale.regularizer.l2 == 1.0


def test_several_files_go_to_a_folder(archives):
    result = run("rewrite", "a.keras", "b.h5", "--output-dir", "out", "--recipe", "vgg")
    assert [line.split(":")[0] for line in result.stdout.splitlines() if line[0] != " "] == [
        str(Path("out", name)) for name in ("a.keras", "b.h5")
    ]
    assert len(graphwd.plan("out/b.h5", Policy.recipe("vgg"))) == 0
    run("rewrite", "a.keras", "--output-dir", "out", "--recipe", "vgg", code=2)
    options = ("--output-dir", "out", "--recipe", "vgg", "--json", "--force")
    told = json.loads(run("rewrite", "a.keras", "b.h5", *options).stdout)
    assert [one["target"] for one in told["files"]] == ["out/a.keras", "out/b.h5"]


def test_the_target_may_be_an_option(archives):
    run("rewrite", "a.keras", "-o", "c.keras", "--recipe", "vgg")
    assert (archives / "c.keras").exists()


def test_a_dry_run_is_the_plan(archives):
    for arguments in (["a.keras"], ["a.keras", "c.keras"]):
        dry = run("rewrite", *arguments, "--dry-run", "--recipe", "vgg")
        assert dry.stdout == run(*PLAN).stdout
    several = ("a.keras", "b.h5", "--output-dir", "out", "--dry-run", "--recipe", "vgg", "--json")
    assert len(json.loads(run("rewrite", *several).stdout)["plans"]) == 2
    assert sorted(os.listdir(archives)) == ["a.keras", "b.h5"]


@pytest.mark.parametrize("live", [[], ["--live"]])
def test_strict_asks_for_an_effect(tmp_path, monkeypatch, live):
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="one")])
    model.save("a.keras")
    Policy([Rule(l2(1), roles="kernel"), Rule(None, layers="Nope")]).save("unmatched.toml")
    Policy([Rule(None)]).save("idle.toml")
    for policy, words in [
        ("unmatched", "Rule 2 (layers: Nope) matches nothing of "),
        ("idle", "edits nothing"),
    ]:
        options = ["--policy", f"{policy}.toml", "--strict", *live]
        result = run("rewrite", "a.keras", "b.keras", *options, code=1)
        assert words in result.stderr
        assert "no copy of it was written" in result.stderr
        assert words in run("plan", "a.keras", *options, code=1).stderr
        assert not Path("b.keras").exists()
        run("rewrite", "a.keras", "c.keras", *options[:2], *live, "--force")
    run("rewrite", "a.keras", "b.keras", "--recipe", "vgg", "--strict", *live)


def test_the_shell_says_force_and_python_overwrite(archives):
    for arguments in (
        ["rewrite", "a.keras", "a.keras", "--recipe", "vgg"],
        ["rewrite", "a.keras", "a.keras", "--recipe", "vgg", "--live"],
        ["report", "a.keras", "-o", "a.keras"],
    ):
        message = run(*arguments, code=2).stderr
        assert "--force" in message
        assert "overwrite" not in message
    with pytest.raises(graphwd.ArchiveError, match=r"overwrite=True\.$"):
        graphwd.rewrite_file("a.keras", "a.keras", Policy.recipe("vgg"))


@pytest.mark.parametrize(
    ("arguments", "surveys", "slots"),
    [
        (["rewrite", "c.keras", "-o", "d.keras", "--portable", "--strict"], 0, 1),
        (["rewrite", "c.keras", "-o", "d.keras", "--portable", "--strict", "--live"], 1, 1),
        (["rewrite", "app:MobileNet", "-o", "d.keras"], 1, 1),
        # The values of penalties are read from the file when they are shown, which looks again.
        (["rewrite", "c.keras", "-o", "d.keras", "--json"], 0, 2),
        (["plan", "c.keras", "--strict"], 0, 2),
        (["plan", "c.keras", "--strict", "--live"], 1, 1),
        (["report", "c.keras", "-o", "c.html"], 0, 2),
        (["report", "c.keras", "-o", "c.html", "--live"], 1, 1),
    ],
)
def test_one_command_is_one_survey_and_one_plan(archives, monkeypatch, arguments, surveys, slots):
    def build(weights=None):
        return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])

    build().save("c.keras")
    monkeypatch.setattr(keras.applications, "MobileNet", build)
    codes = {one.__code__: one.__name__ for one in (survey, make_plan, find_slots)}
    calls = Counter()

    def count(frame, event, argument):
        if event == "call" and frame.f_code in codes:
            calls[codes[frame.f_code]] += 1

    sys.setprofile(count)  # of every call, by whatever name a module imports the function
    try:
        run(*arguments, "--recipe", "vgg")
    finally:
        sys.setprofile(None)
    assert calls == Counter(survey=surveys, make_plan=1, find_slots=slots)


def test_a_rewrite_decodes_no_weight(archives, monkeypatch):
    from graphwd.saved import rewriting

    def look(self, edits):
        raise AssertionError("the values of penalties are for tables")

    monkeypatch.setattr(rewriting.StoredMeasure, "__call__", look)
    run("rewrite", "a.keras", "c.keras", "--recipe", "vgg")
