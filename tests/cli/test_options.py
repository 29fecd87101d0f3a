"""Options: which policy they make, and what is said of wrong ones."""

import json

import keras
import pytest

import graphwd
from graphwd.policy.policies import Policy
from tests.support.command_line import command, fails, invoke


def test_strength_goes_to_the_recipe(folder):
    for option, strength in ((["--weight-decay", "0.5"], 0.25), (["--l2", "0.5"], 0.5)):
        result = invoke("plan", "model.keras", "--recipe", "no-bias", "--json", *option)
        after = {edit["after"]["config"]["l2"] for edit in json.loads(result.stdout)["edits"]}
        assert after == {strength}


@pytest.mark.parametrize(
    ("arguments", "policy"),
    [
        (["--l2", "0.5"], keras.regularizers.L2(0.5)),
        (["--weight-decay", "0.5", "--ndim", "4"], graphwd.Rule(graphwd.weight_decay(0.5), ndim=4)),
        (
            ["--l2", "0.5", "--ndim", ">=2", "--roles", "!*bias*", "--roles", "!depthwise"],
            graphwd.Rule(keras.regularizers.L2(0.5), ndim=">=2", roles=["!*bias*", "!depthwise"]),
        ),
        (
            ["--l2", "0.5", "--layers", "Dense", "--paths", "*/kernel"],
            graphwd.Rule(keras.regularizers.L2(0.5), layers="Dense", paths="*/kernel"),
        ),
        (["--policy", "no-bias"], "no-bias"),
        (["--policy", "no-bias", "--l2", "0.5"], Policy.recipe("no-bias", l2=0.5)),
    ],
)
def test_a_strength_alone_is_a_policy_and_so_is_a_recipes_name(folder, arguments, policy):
    result = invoke("plan", "model.keras", "--json", *arguments)
    assert result.exit_code == 0, result.output
    expected = graphwd.plan("model.keras", policy).to_dict()
    assert json.loads(result.stdout)["policy"] == expected["policy"]
    assert json.loads(result.stdout)["edits"] == expected["edits"]


def test_a_rule_that_matches_nothing_is_one_warning(folder):
    (folder / "typo.toml").write_text('[[rules]]\nroles = "kernal"\nl2 = 1e-3\n')
    for way in ([], ["--live"]):
        result = invoke("plan", "model.keras", "--policy", "typo.toml", *way)
        assert result.exit_code == 0
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith("graphwd: warning: Rule 1")
        assert "did you mean 'kernel'?" in result.stderr
    result = invoke("rewrite", "model.keras", "o.keras", "--policy", "typo.toml", "--live")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rewrit", "a", "b"], ["did you mean 'rewrite'?"]),
        (["zzz"], ["rewrite, plan, inspect, report, verify, recipes"]),
        (["rewrite", "model.keras"], ["DST", "graphwd rewrite --help"]),
        (["rewrite", "model.keras", "o.keras"], ["--policy", "--recipe", "graphwd recipes"]),
        (["plan", "model.keras", "--recipe", "moblnet"], ["did you mean 'mobilenet'?"]),
        (["recipes", "zzz"], ["uniform", "bert"]),
        (["plan", "model.keras", "--recipe", "vgg", "--policy", "p.toml"], ["not both"]),
        (["plan", "model.keras", "--recipe", "vgg", "--ndim", "4"], ["--ndim", "--weight-decay"]),
        (["plan", "model.keras", "--roles", "kernel"], ["--roles", "--l2"]),
        (["plan", "model.keras", "--l2", "1", "--ndim", "two"], ["`ndim`", "'two'"]),
        (["plan", "model.keras", "--l2", "1", "--weight-decay", "1"], ["not both"]),
        (["plan", "model.keras"], ["--policy FILE", "--recipe NAME", "--weight-decay X"]),
        (["plan", "model.keras", "--ndim", "4"], ["--ndim selects weights for a strength"]),
        (["plan", "model.keras", "--ndim", "4", "--recipe", "vgg"], ["rules of their own"]),
        (["plan", "model.keras", "--policy", "decay.toml", "--l2", "1"], ["--recipe"]),
        (["plan", "model.keras", "--recipe", "vgg", "--l2", "-1"], ["at least 0"]),
        (["plan", "model.keras", "--recipe", "vgg", "--l2", "nan"], ["finite"]),
        (["plan", "model.keras", "--recipe", "vgg", "--l2", "x"], ["--l2", "float"]),
        (["plan", "model.keras", "--recipe", "vgg", "--l2", "1", "--weight-decay", "1"], ["both"]),
        (["plan", "model.keras", "--policy", "absent.toml"], ["absent.toml"]),
        (["plan", "model.keras", "--policy", "model.keras"], [".toml"]),
        (["plan", "model.keras", "--policy", "moblenet"], ["did you mean 'mobilenet'?"]),
        (["plan", "absent.keras", "--recipe", "vgg"], ["absent.keras"]),
        (["plan", "absent.keras", "--recipe", "vgg", "--live"], ["absent.keras"]),
        (["plan", "decay.toml", "--recipe", "vgg"], ["decay.toml"]),
        (["inspect", "decay.toml", "--live"], ["decay.toml"]),
        (["inspect", "."], ["directory"]),
        (["inspect", "-"], ["'-' is no file"]),
        (["rewrite", "model.keras", "-", "--recipe", "vgg"], ["'-' is no file"]),
        (["rewrite", "model.keras", "-o", "-", "--recipe", "vgg"], ["'-' is no file"]),
        (["plan", "model.keras", "--policy", "-"], ["'-' is no file"]),
        (["report", "model.keras", "-o", "-"], ["'-' is no file"]),
        (["report", "model.keras", "-o", "a", "-o", "b"], ["-o was given twice"]),
        (["rewrite", "model.keras", "--output-dir", "-"], ["'-' is no file"]),
        (["rewrite", "a", "--output-dir", "model.h5", "--recipe", "vgg"], ["is a file"]),
        (["verify", "model.keras", "app:Mobilenet"], ["did you mean 'MobileNet'?"]),
        (["report", "app:Mobilenet", "-o", "a"], ["did you mean 'MobileNet'?"]),
        (["verify", "model.keras", "-"], ["'-' is no file"]),
        (["plan", "model.keras", "--recipe", "vgg", "--recipe", "bert"], ["--recipe was given tw"]),
        (["plan", "model.keras", "--policy", "a.json", "--policy", "b"], ["--policy was given tw"]),
        (["rewrite", "--recipe", "vgg"], ["Missing argument 'SRC'"]),
        (["rewrite", "a", "b", "c", "--recipe", "vgg"], ["--output-dir"]),
        (["rewrite", "a", "b", "-o", "c", "--recipe", "vgg"], ["--output-dir"]),
        (["rewrite", "a", "-o", "c", "--output-dir", "d", "--recipe", "vgg"], ["not both"]),
        (["rewrite", "a/x", "b/x", "--output-dir", "d", "--recipe", "vgg"], ["Two of the files"]),
        (["rewrite", "app:Mobilenet", "o.keras", "--recipe", "vgg"], ["did you mean 'MobileNet'?"]),
        (["inspect", "model.keras", "--weights", "imagenet"], ["app:NAME"]),
        (["inspect", "model.keras", "--weights", "other"], ["imagenet"]),
        (["inspect", "model.keras", "--import", "os"], ["--live"]),
        (["inspect", "model.keras", "--live", "--import", "absent_module"], ["absent_module"]),
        (["inspect", "model.keras", "--live", "--import", "../up"], ["takes a module's name"]),
        (["inspect", "model.keras", "--recipe", "vgg"], ["--recipe"]),
        (["verify", "model.keras", "absent.keras"], ["absent.keras"]),
        (["rewrite", "model.keras", "o.h5", "--recipe", "vgg"], [".keras"]),
        (["rewrite", "model.keras", "no/o.keras", "--recipe", "vgg"], ["directory"]),
        (["rewrite", "model.keras", "no/o.keras", "--recipe", "vgg", "--live"], ["directory"]),
        (["rewrite", "model.keras", "o.zip", "--recipe", "vgg", "--live"], [".keras or .h5"]),
        (["rewrite", "model.keras", "o", "--recipe", "vgg"], [".keras or .h5"]),
        (["rewrite", "model.keras", ".", "--recipe", "vgg", "--force"], ["directory"]),
    ],
)
def test_errors_are_one_line(folder, arguments, words):
    before = sorted(folder.iterdir())
    fails(invoke(*arguments), *words)
    assert sorted(folder.iterdir()) == before


def test_completion():
    script = command(env={"_GRAPHWD_COMPLETE": "bash_source"})
    assert "_GRAPHWD_COMPLETE=bash_complete" in script.stdout
    for words, expected in (
        ("graphwd rew", "rewrite"),
        ("graphwd plan x.keras --recipe mobilenetv", "mobilenetv2"),
        ("graphwd rewrite --port", "--portable"),
    ):
        variables = {
            "_GRAPHWD_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        assert f"plain,{expected}" in command(env=variables).stdout.splitlines()
