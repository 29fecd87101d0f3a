"""The command line: what it writes, prints and returns, and what it must not load."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from saved_models import model_config, write_keras

import graphwd
from graphwd.cli import sources
from graphwd.cli.commands import cli, main
from graphwd.policy.policies import Policy, recipes

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    key: value
    for key, value in os.environ.items()
    if key not in ("TF_CPP_MIN_LOG_LEVEL", "COLUMNS")
}
ENVIRONMENT["PYTHONPATH"] = str(ROOT)
RUN = [sys.executable, "-c", "from graphwd.cli.commands import main; main()"]


def command(*arguments, **options):
    """Runs graphwd in a process of its own."""
    return subprocess.run(
        [*RUN, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, **options.pop("env", {})},
        timeout=300,
        **options,
    )


def invoke(*arguments):
    return CliRunner().invoke(cli, list(map(str, arguments)), prog_name="graphwd")


def fails(result, *words, code=2):
    """Checks that a command failed with one line on standard error, and nothing else."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("graphwd: ")
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small compiled model, saved by Keras."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv_1")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.DepthwiseConv2D(3, name="depth")(x)
    x = keras.layers.Conv2D(4, 3, name="conv_2")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(x))
    model.compile("adam", keras.losses.MeanSquaredError())
    model.fit(np.ones((4, 8, 8, 3)), np.ones((4, 2)), verbose=0)  # Keras saves a used optimizer
    folder = tmp_path_factory.mktemp("models")
    model.save(folder / "model.keras")
    model.save(folder / "model.h5", include_optimizer=False)
    return folder


@pytest.fixture
def folder(saved, tmp_path, monkeypatch):
    """A working directory with the saved models and a policy in it."""
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "decay.toml").write_text('[[rules]]\nroles = "kernel"\nl2 = 1e-3\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def penalties(path):
    model = keras.saving.load_model(path)
    return sorted(
        variable.path for variable in model.trainable_variables if variable.regularizer is not None
    )


KERNELS = ["conv_1/kernel", "conv_2/kernel", "head/kernel"]


# Writing


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("way", [[], ["--live"]])
def test_rewrite_writes_what_keras_loads(folder, suffix, way):
    result = invoke("rewrite", f"model{suffix}", f"out{suffix}", "--policy", "decay.toml", *way)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert result.stdout.startswith(f"out{suffix}: ")
    assert "  edited     3 of 13 slots: 3 kernel\n" in result.stdout
    assert "equal but for the planned edits" in result.stdout
    assert penalties(f"out{suffix}") == KERNELS
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []


def test_both_ways_write_the_same_model(folder):
    assert invoke("rewrite", "model.keras", "a.keras", "--recipe", "vgg").exit_code == 0
    assert invoke("rewrite", "model.keras", "b.keras", "--recipe", "vgg", "--live").exit_code == 0
    report = graphwd.verify("a.keras", "b.keras", graphwd.Policy([]))
    assert report.ok, str(report)
    one, other = map(keras.saving.load_model, ("a.keras", "b.keras"))
    assert one.optimizer.iterations == other.optimizer.iterations
    x = np.ones((2, 8, 8, 3), "float32")
    np.testing.assert_array_equal(one.predict(x, verbose=0), other.predict(x, verbose=0))


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


def test_json_of_a_rewrite(folder):
    result = invoke("rewrite", "model.keras", "out.keras", "--recipe", "vgg", "--json")
    data = json.loads(result.stdout)
    assert data["target"] == "out.keras"
    assert data["bytes"] == os.path.getsize("out.keras")
    assert len(data["edits"]) == 3


def test_a_failed_proof_writes_nothing_and_returns_1(folder, monkeypatch):
    from graphwd.live.proving import verification

    broken = verification.Report(("conv_1: the strides differ",), {})
    monkeypatch.setattr(verification, "verify_clone", lambda *_, **__: broken)
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


# Looking


def test_plan_and_inspect_print_tables(folder):
    result = invoke("plan", "model.keras", "--policy", "decay.toml")
    assert result.exit_code == 0
    assert result.stdout.startswith("3 of the ")
    assert "conv_*/kernel" in result.stdout
    assert result.stdout == f"{graphwd.plan('model.keras', Policy.load('decay.toml'))}\n"
    result = invoke("inspect", "model.keras")
    assert result.exit_code == 0
    assert "conv_*/kernel" in result.stdout


@pytest.mark.parametrize("way", [[], ["--live"]])
def test_tables_have_numbers(folder, way):
    result = invoke("inspect", "model.keras", *way)
    assert result.exit_code == 0, result.output
    assert "parameters" in result.stdout
    result = invoke("plan", "model.keras", "--recipe", "vgg", *way)
    assert "Penalty by rule" in result.stdout
    assert "Penalty by role" in result.stdout
    data = json.loads(invoke("plan", "model.keras", "--recipe", "vgg", "--json", *way).stdout)
    kernel = data["summary"]["roles"][0]
    assert (kernel["label"], kernel["parameters"]) == ("kernel", 108 + 144 + 8)
    model = keras.saving.load_model("model.keras")
    kernels = [model.get_layer(name).kernel for name in ("conv_1", "conv_2", "head")]
    squares = [np.sum(np.square(kernel)) for kernel in kernels]
    assert kernel["planned_penalty"] == pytest.approx(2.5e-4 * sum(squares), rel=1e-5)
    largest = kernel["largest"]
    assert len(largest) == 3
    assert largest[0]["penalty"] == pytest.approx(2.5e-4 * max(squares), rel=1e-5)


def test_json_of_plan_and_inspect_is_that_of_the_package(folder):
    policy = Policy.load("decay.toml")
    planned = invoke("plan", "model.keras", "--policy", "decay.toml", "--json")
    assert json.loads(planned.stdout) == graphwd.plan("model.keras", policy).to_dict()
    inspected = json.loads(invoke("inspect", "model.keras", "--json").stdout)
    assert inspected["policy"] is None
    assert [one["path"] for one in inspected["slots"]][:2] == ["conv_1/kernel", "conv_1/bias"]


@pytest.mark.parametrize("way", [[], ["--live"]])
def test_report_is_a_page(folder, way):
    for options in (["--recipe", "vgg"], []):
        arguments = ["report", "model.keras", "-o", "out.html", *options, *way]
        result = invoke(*arguments)
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith("out.html: ")
        assert "<html" in (folder / "out.html").read_text("utf-8")
        fails(invoke(*arguments), "exists", "--force")
        assert invoke(*arguments, "--force").exit_code == 0
        (folder / "out.html").unlink()
    fails(invoke("report", "model.keras", "-o", "."), "directory")
    fails(invoke("report", "model.keras", "-o", "no/out.html"), "no/out.html")
    fails(invoke("report", "model.keras"), "--output")


def test_verify_tells_by_its_exit_code(folder):
    assert invoke("rewrite", "model.keras", "out.keras", "--recipe", "vgg").exit_code == 0
    for options in ([], ["--recipe", "vgg"], ["--live"], ["--outputs"]):
        result = invoke("verify", "model.keras", "out.keras", *options)
        assert result.exit_code == 0, result.output
        planned = "but for the planned edits" if "--recipe" in options else "apart from reg"
        assert result.stdout.startswith(f"equal {planned}")
    result = invoke("verify", "model.keras", "out.keras", "--recipe", "no-bias")
    assert result.exit_code == 1
    assert "head/kernel: the config has L2(0.00025) instead of the planned L2" in result.stdout
    assert result.stderr == ""
    result = invoke("verify", "model.keras", "out.keras", "--recipe", "no-bias", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["ok"] is False


def test_recipes_are_listed_and_told():
    result = invoke("recipes")
    assert [line.split()[0] for line in result.stdout.splitlines()[2:]] == [
        recipe.name for recipe in recipes()
    ]
    told = invoke("recipes", "mobilenet").stdout
    assert "arXiv:1704.04861" in told
    assert "roles: depthwise -> none" in told
    data = json.loads(invoke("recipes", "vgg", "--json").stdout)["recipes"]
    assert [one["coefficient"] for one in data] == [5e-4]


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


# Errors


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
        (["plan", "model.keras", "--policy", "decay.toml", "--l2", "1"], ["--recipe"]),
        (["plan", "model.keras", "--recipe", "vgg", "--l2", "-1"], ["at least 0"]),
        (["plan", "model.keras", "--recipe", "vgg", "--l2", "nan"], ["finite"]),
        (["plan", "model.keras", "--recipe", "vgg", "--l2", "x"], ["--l2", "float"]),
        (["plan", "model.keras", "--recipe", "vgg", "--l2", "1", "--weight-decay", "1"], ["both"]),
        (["plan", "model.keras", "--policy", "absent.toml"], ["absent.toml"]),
        (["plan", "model.keras", "--policy", "model.keras"], [".toml"]),
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
        (["rewrite", "model.keras", ".", "--recipe", "vgg", "--force"], ["directory"]),
    ],
)
def test_errors_are_one_line(folder, arguments, words):
    before = sorted(folder.iterdir())
    fails(invoke(*arguments), *words)
    assert sorted(folder.iterdir()) == before


def test_an_unknown_class_is_an_error_live_only(folder):
    write_keras("custom.keras", model_config(class_name="Nobody", registered_name="who>Nobody"))
    assert invoke("inspect", "custom.keras").exit_code == 0
    fails(invoke("inspect", "custom.keras", "--live"), "Nobody", "leave out --live", "--import")


MODULE = """
import keras

@keras.saving.register_keras_serializable("mine")
class Twice(keras.layers.Layer):
    def __init__(self, kernel_regularizer=None, **more):
        super().__init__(**more)
        self.inner = keras.layers.Dense(3, name="inner")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x) * 2

print("imported")
"""
SAVE = """
import keras, my_layers
inputs = keras.Input((3,))
keras.Model(inputs, my_layers.Twice(name="twice")(inputs)).save("mine.keras")
"""


def test_classes_of_the_users_own_are_imported_from_the_folder(folder):
    (folder / "my_layers.py").write_text(MODULE)
    subprocess.run([sys.executable, "-c", SAVE], check=True, capture_output=True, env=ENVIRONMENT)
    result = command("inspect", "mine.keras", "--live")
    assert result.returncode == 2
    assert "Twice" in result.stderr
    assert "--import" in result.stderr
    program = {"PYTHONSAFEPATH": "1"}  # as in an installed program, Python does not look here
    for name in ("my_layers", "my_layers.py"):
        result = command("inspect", "mine.keras", "--live", "--import", name, env=program)
        assert result.returncode == 0, result.stderr
        assert "twice/inner/kernel" in result.stdout
        assert result.stderr == "imported\n"  # not among the tables, nor in JSON
    options = ["--recipe", "vgg", "--live", "--import", "my_layers"]
    result = command("rewrite", "mine.keras", "out.keras", *options, env=program)
    assert result.returncode == 0, result.stderr
    result = command("verify", "mine.keras", "out.keras", *options, env=program)
    assert result.returncode == 0, result.stderr
    (folder / "my_layers.py").write_text("1 / 0")
    result = command("inspect", "mine.keras", "--live", "--import", "my_layers")
    assert result.returncode == 2
    assert "'my_layers' can't be imported (ZeroDivisionError: division by zero)" in result.stderr
    assert result.stderr.count("\n") == 1


def test_errors_can_not_steer_a_terminal():
    fails(invoke("inspect", "no\x1b[2Jfile\n.keras"), r"no\x1b[2Jfile")


def test_debug_shows_where(folder):
    for arguments in (["--debug", "inspect", "absent"], ["inspect", "absent", "--debug"]):
        result = invoke(*arguments)
        assert result.exit_code == 2
        assert "Traceback" in result.stderr
        assert "ArchiveError" in result.stderr


def test_what_nobody_foresaw_is_one_line_too(folder, monkeypatch):
    from graphwd.saved import archive

    def fail(path):
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(archive, "inspect_file", fail)
    fails(invoke("inspect", "model.keras"), "ZeroDivisionError: two lines", "--debug", "report")


def test_ctrl_c_is_one_line(folder, monkeypatch):
    from graphwd.saved import archive

    def fail(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(archive, "inspect_file", fail)
    result = invoke("inspect", "model.keras")
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr.strip() == "graphwd: interrupted."  # after the ^C that a terminal shows


def test_a_closed_pipe_is_no_error(folder):
    line = f"{' '.join([*RUN[:2], repr(RUN[2])])} plan model.keras --recipe vgg --json | head -1"
    result = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, env=ENVIRONMENT, check=True
    )
    assert (result.stdout, result.stderr) == ("{\n", "")


# Help


def test_help_has_examples_for_every_command():
    for name in ([], *([name] for name in cli.commands)):
        result = invoke(*name, "--help")
        assert result.exit_code == 0
        assert f"\n    graphwd {' '.join(name)}" in result.stdout
        assert max(map(len, result.stdout.splitlines())) <= 100
        assert invoke(*name, "-h").stdout == result.stdout


def test_no_arguments_are_wrong_usage_that_gets_help():
    result = invoke()
    assert result.exit_code == 2
    assert result.stdout.startswith("Usage: graphwd")


def test_help_loads_nothing():
    heavy = ["keras", "tensorflow", "jax", "torch", "h5py", "networkx", "rich", "numpy", "tomli_w"]
    code = f"""
        import sys
        from graphwd.cli.commands import main
        try:
            main()
        except SystemExit as done:
            assert done.code in (None, 0), done.code
        loaded = [name for name in {heavy!r} if name in sys.modules]
        assert not loaded, loaded
    """
    lines = "\n".join(line[8:] for line in code.splitlines())
    for arguments in (["--help"], ["rewrite", "--help"]):
        subprocess.run(
            [sys.executable, "-c", lines, *arguments],
            env=ENVIRONMENT,
            check=True,
            capture_output=True,
        )


def test_files_are_planned_and_rewritten_without_keras(folder):
    code = """
import sys
for name in ("keras", "tensorflow", "jax", "torch"):
    sys.modules[name] = None
from graphwd.cli.commands import main
main()
"""
    for arguments in (
        ["rewrite", "model.keras", "out.keras", "--recipe", "vgg"],
        ["plan", "model.h5", "--recipe", "vgg"],
        ["inspect", "out.keras"],
        ["verify", "model.keras", "out.keras"],
    ):
        result = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
        )
        assert (result.returncode, result.stderr) == (0, ""), result.stderr


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


def test_version():
    result = invoke("--version")
    assert result.exit_code == 0
    try:
        assert result.stdout == f"graphwd {graphwd.__version__}\n"
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        assert "not installed" in result.stdout


# Architectures


def test_an_architecture_is_built_rewritten_and_saved(tmp_path):
    result = command("rewrite", "app:MobileNet", "out.keras", "--recipe", "mobilenet", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == (
        "graphwd: app:MobileNet has weights: random (--weights imagenet gives trained ones).\n"
    )
    assert "15 of 111 slots: 15 kernel" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["out.keras"]
    model = keras.saving.load_model(tmp_path / "out.keras")
    assert len(model.losses) == 15


def test_a_misspelt_architecture_is_suggested():
    result = invoke("inspect", "app:mobilenet")
    assert result.exit_code == 2
    assert "did you mean 'MobileNet'?" in result.stderr
    assert "MobileNet" in invoke("inspect", "app:qqqqqq").stderr


def test_trained_weights_are_asked_for_by_name(monkeypatch):
    asked = []

    def build(weights):
        asked.append(weights)
        return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])

    monkeypatch.setattr(keras.applications, "MobileNet", build)
    result = invoke("inspect", "app:MobileNet", "--weights", "imagenet")
    assert "has weights: ImageNet." in result.stderr
    assert "random" in invoke("inspect", "app:MobileNet").stderr
    assert asked == ["imagenet", None]


def test_a_failed_download_is_an_error_and_no_random_model(folder, monkeypatch):
    def build(weights):
        raise OSError("URL fetch failure\non somewhere")

    monkeypatch.setattr(keras.applications, "MobileNet", build)
    arguments = ["app:MobileNet", "o.keras", "--weights", "imagenet", "--recipe", "vgg"]
    result = invoke("rewrite", *arguments)
    assert result.exit_code == 2
    assert "Keras can't build MobileNet (OSError: URL fetch failure on somewhere)" in result.stderr
    assert not (folder / "o.keras").exists()


def test_what_keras_prints_does_not_mix_with_json(folder, monkeypatch):
    def build(weights):
        print("Downloading data from somewhere")
        return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])

    monkeypatch.setattr(keras.applications, "MobileNet", build)
    result = invoke("inspect", "app:MobileNet", "--json")
    assert json.loads(result.stdout)["source"]


# Saving live models


@pytest.fixture
def small():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


def test_an_error_while_saving_leaves_the_target(folder, small, monkeypatch):
    target = folder / "out.keras"
    target.write_bytes(b"precious")
    before = sorted(folder.iterdir())

    def fill(path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(small), "save", lambda self, path: fill(path))
    with pytest.raises(graphwd.ArchiveError, match="No space left on device; what was there"):
        sources.save(small, str(target), overwrite=True)
    assert target.read_bytes() == b"precious"
    assert sorted(folder.iterdir()) == before


def test_a_target_that_appears_meanwhile_is_not_replaced(folder, small, monkeypatch):
    target = folder / "out.keras"
    save = type(small).save

    def late(self, path):
        save(self, path)
        target.write_bytes(b"precious")

    monkeypatch.setattr(type(small), "save", late)
    with pytest.raises(graphwd.ArchiveError, match="exists"):
        sources.save(small, str(target))
    assert target.read_bytes() == b"precious"


def test_a_link_and_a_mode_stay(folder, small):
    real = folder / "real.keras"
    real.write_bytes(b"old")
    real.chmod(0o640)
    (folder / "link.keras").symlink_to(real)
    sources.save(small, "link.keras", overwrite=True)
    assert (folder / "link.keras").is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    keras.saving.load_model(real)


def test_a_model_that_keras_can_not_save_is_an_error(folder, small, monkeypatch):
    def refuse(self, path):
        raise TypeError("cannot pickle '_thread.lock' object")

    monkeypatch.setattr(type(small), "save", refuse)
    with pytest.raises(graphwd.ModelError, match="can't save"):
        sources.save(small, "out.keras")
    assert not (folder / "out.keras").exists()


def test_main_is_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["graphwd", "recipes", "vgg", "--json"])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 0
    assert json.loads(capsys.readouterr().out)
