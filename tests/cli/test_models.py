"""Live models: loaded, built by keras.applications, and saved, quietly."""

import json
from pathlib import Path

import keras
import pytest

import graphwd
from graphwd.cli import models
from tests.support import processes
from tests.support.command_line import ENVIRONMENT, command, fails, invoke
from tests.support.processes import script
from tests.support.saved_models import model_config, write_keras


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
    processes.run(SAVE, env=ENVIRONMENT)
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


def test_a_module_that_is_not_there_is_told_before_keras_loads(archives):
    lines = "import sys; sys.modules['keras'] = None\nfrom graphwd.__main__ import main; main()"
    arguments = ["inspect", "a.keras", "--live", "--import", "no_such_module"]
    result = script(lines, *arguments, env=ENVIRONMENT)
    assert result.returncode == 2
    assert "There is no module 'no_such_module'" in result.stderr


@pytest.mark.parametrize("level", [None, "0", "3"])
def test_tensorflow_says_nothing_whatever_is_set(archives, level):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save("c.keras")
    environment = {} if level is None else {"TF_CPP_MIN_LOG_LEVEL": level}
    result = command("inspect", "c.keras", "--live", env=environment)
    assert result.returncode == 0
    assert result.stderr == ""


def test_a_backend_that_is_none_is_one_line(archives):
    result = command("inspect", "a.keras", "--live", env={"KERAS_BACKEND": "nope"})
    assert result.returncode == 2
    assert result.stderr.startswith("graphwd: Keras can't be loaded (")
    assert result.stderr.count("\n") == 1
    assert "unexpected" not in result.stderr


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


def test_a_misspelt_architecture_is_answered_before_keras_is_loaded(archives):
    code = """
        import sys
        from graphwd.__main__ import main
        try:
            main()
        finally:
            assert not {"keras", "tensorflow"} & set(sys.modules)
    """
    arguments = ["rewrite", "app:MobilNet", "o.keras", "--recipe", "vgg"]
    result = script(code, *arguments, env=ENVIRONMENT)
    assert result.stderr == (
        "graphwd: keras.applications has no 'MobilNet'; did you mean 'MobileNet'?\n"
    )
    found = {name for name, value in vars(keras.applications).items() if name[0].isupper()}
    assert set(models.architectures()) == found


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


# Saving


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
        models.save(small, str(target), overwrite=True)
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
        models.save(small, str(target))
    assert target.read_bytes() == b"precious"


def test_a_link_and_a_mode_stay(folder, small):
    real = folder / "real.keras"
    real.write_bytes(b"old")
    real.chmod(0o640)
    (folder / "link.keras").symlink_to(real)
    models.save(small, "link.keras", overwrite=True)
    assert (folder / "link.keras").is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    keras.saving.load_model(real)


def test_a_model_that_keras_can_not_save_is_an_error(folder, small, monkeypatch):
    def refuse(self, path):
        raise TypeError("cannot pickle '_thread.lock' object")

    monkeypatch.setattr(type(small), "save", refuse)
    with pytest.raises(graphwd.ModelError, match="can't save"):
        models.save(small, "out.keras")
    assert not (folder / "out.keras").exists()
