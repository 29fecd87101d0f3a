"""What Keras finds when it loads a carrying layer: graphwd, or a name that says so."""

import keras
import pytest

import graphwd
from tests.support.processes import run


def test_without_graphwd_the_file_says_what_is_missing(rewritten, tmp_path):
    path = tmp_path / "model.keras"
    rewritten.save(path)
    code = """
        import sys, keras
        class Block(keras.layers.Layer):
            pass
        try:
            keras.saving.load_model(sys.argv[1], custom_objects={"Block": Block})
        except TypeError as error:
            assert "graphwd" in str(error), error
            print("refused")
    """
    assert run(code, path).strip() == "refused"


@pytest.mark.parametrize("first", ["graphwd", "keras"])
def test_importing_graphwd_is_enough(first, tmp_path):
    inputs = keras.Input((4, 3))
    hidden = keras.layers.RMSNormalization(name="norm")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    rewritten = graphwd.rewrite(model, graphwd.Rule(keras.regularizers.L2(1e-2)))
    path = tmp_path / "model.keras"
    rewritten.save(path)
    second = {"graphwd": "keras", "keras": "graphwd"}[first]
    code = (
        f"import {first}, {second}, keras, sys\n"
        "print(len(keras.saving.load_model(sys.argv[1]).losses))"
    )
    assert run(code, path).split()[-1] == str(len(rewritten.losses)) == "3"
