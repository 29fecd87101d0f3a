"""What the backends themselves make, hung on a layer: tables, checkpoints, modules, optimizers."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
from keras import layers

import graphwd
from tests.support.copies import X, copied, dense, same


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's own")
class TestTensorFlow:
    def test_a_checkpoint_of_the_model_is_one_of_the_copy(self, tmp_path):
        import tensorflow as tf

        model = dense()
        layer = model.get_layer("dense")
        layer.saved = tf.train.Checkpoint(kernel=layer.kernel.value)
        layer.manager = tf.train.CheckpointManager(layer.saved, tmp_path, max_to_keep=2)
        layer.manager.save()
        copy = graphwd.rewrite(model, "l2").get_layer("dense")
        assert copy.manager.checkpoint is copy.saved
        copy.manager.save()
        copy.kernel.assign(copy.kernel + 1)
        assert not same([copy.kernel], [layer.kernel])
        copy.saved.restore(copy.manager.latest_checkpoint)
        assert same([copy.kernel], [layer.kernel])

    def test_a_strategy_in_an_attribute_is_shared(self):
        import tensorflow as tf

        strategy = tf.distribute.MirroredStrategy(["CPU:0"])
        model = dense()
        model.get_layer("dense").strategy = strategy
        assert copied(model).get_layer("dense").strategy is strategy

    def test_a_table_of_which_there_is_no_copy_is_refused(self):
        import tensorflow as tf

        model = dense()
        model.get_layer("dense").table = tf.lookup.experimental.DenseHashTable(
            tf.int64, tf.int64, default_value=-1, empty_key=-2, deleted_key=-3
        )
        with pytest.raises(graphwd.EquivalenceError, match="DenseHashTable"):
            graphwd.rewrite(model, "l2")

    def test_the_attribute_that_holds_a_loaded_model_is_named(self, tmp_path):
        import tensorflow as tf

        model = dense()
        model.export(tmp_path / "exported", verbose=False)
        model.get_layer("dense").exported = tf.saved_model.load(tmp_path / "exported")
        with pytest.raises(graphwd.ModelError, match=r"'dense' .* in exported .*in_place"):
            graphwd.rewrite(model, "l2")


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="PyTorch's own")
class TestTorch:
    @staticmethod
    def fitted(make):
        """A model around a module of PyTorch's, after a step of training."""
        model = keras.Sequential(
            [keras.Input((4,)), layers.TorchModuleWrapper(make()), layers.Dense(2)]
        )
        model(X)
        model.compile("sgd", "mse")
        model.fit(X, np.ones((2, 2)), verbose=0)
        return model

    @pytest.mark.parametrize(
        "change",
        [
            "torch.nn.utils.weight_norm",
            "torch.nn.utils.spectral_norm",
            "torch.nn.utils.parametrizations.weight_norm",
            "torch.fx.symbolic_trace",
            "torch.jit.script",
            "functools.partial(torch.compile, backend='eager')",
        ],
    )
    def test_modules_as_they_are_changed(self, change):
        import torch

        changed = eval(change, {"torch": torch, "functools": functools})  # written above
        copied(self.fitted(lambda: changed(torch.nn.Linear(4, 3))))

    def test_an_optimizer_and_its_scheduler_go_on_together(self):
        import torch

        model = dense()
        weights = [variable.value for variable in model.trainable_weights]
        model.steps = torch.optim.SGD(weights, 0.1, momentum=0.9)
        model.rates = torch.optim.lr_scheduler.StepLR(model.steps, 1)

        def step(each):
            each.steps.zero_grad()
            each(X).sum().backward()
            each.steps.step()
            each.rates.step()

        step(model)
        copy = graphwd.rewrite(model, "l2")
        assert copy.rates.optimizer is copy.steps is not model.steps
        for each in (model, copy):
            step(each)
            step(each)
        assert same(model.weights, copy.weights)

    def test_what_is_noted_on_a_parameter_comes_along(self):
        import torch

        model = self.fitted(lambda: torch.nn.Linear(4, 3))
        model.layers[0].module.weight.no_weight_decay = True
        model.layers[0].module.weight.register_hook(lambda gradient: gradient * 0)
        model.layers[1].kernel.value.learning_rate = [0.5]
        copy = graphwd.rewrite(model, "l2")
        assert copy.layers[0].module.weight.no_weight_decay
        assert copy.layers[1].kernel.value.learning_rate == [0.5]
        before = keras.ops.convert_to_numpy(copy.layers[0].module.weight)
        copy.fit(X, np.ones((2, 2)), verbose=0)
        assert same([copy.layers[0].module.weight], [before])
