"""Models as strangers write them: after keras.io's examples and questions of users, made tiny.

Each maker builds a model and uses it as its author would have: calls it, adapts, trains a step or
two. It is deterministic: the same maker gives the same model twice, but for the names' numbers.
"""

import abc
import collections
import enum
import functools
import math
import threading
import typing
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers, ops

BACKEND = keras.backend.backend()
EAGER = {"run_eagerly": True}  # a step of a tiny model takes longer to trace than to run

traced = lambda function: function
if BACKEND == "tensorflow":
    import tensorflow as tf

    traced = tf.function
elif BACKEND == "torch":
    import torch


@dataclass
class Used:
    """A model that was used.

    Attributes:
        model: The model.
        outputs: What it computes, without training.
        step: One training step.
        faithful: Whether two models of one maker train alike to the bit or nearly so.
    """

    model: Any
    outputs: Callable[[Any], Any]
    step: Callable[[Any], Any]
    faithful: bool = True


MAKERS: dict[str, Callable[[], Used]] = {}


def stranger(function=None, *, only: str = "", but: str = ""):
    """Notes a maker, on one backend, on all, or where what its author wrote runs."""
    if function is None:
        return lambda function: stranger(function, only=only, but=but)
    if BACKEND not in but and (not only or only == BACKEND):
        MAKERS[function.__name__] = function
    return function


def made(name: str) -> Used:
    keras.utils.set_random_seed(7)
    used = MAKERS[name]()
    keras.utils.set_random_seed(8)
    return used


def data(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def labels(count: int, classes: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, count).astype("int32")


def trained(model: Any, x: Any, y: Any = None, *, steps: int = 1, **options: Any) -> Used:
    """The model after some steps on a batch."""
    step = lambda model: model.train_on_batch(x, y)
    for _ in range(steps):
        step(model)
    return Used(model, lambda model: model(x, training=False), step, **options)


def fitted(model: Any, x: Any, outputs: Callable[[Any], Any], **options: Any) -> Used:
    """The model after an epoch of one batch, where train_step takes a batch as it is."""
    step = lambda model: model.fit(x, batch_size=64, epochs=1, verbose=0, shuffle=False)
    step(model)
    return Used(model, outputs, step, **options)


# ---------------------------------------------------------------- generative models


class GAN(keras.Model):
    def __init__(self, discriminator, generator, latent_dim):
        super().__init__()
        self.discriminator = discriminator
        self.generator = generator
        self.latent_dim = latent_dim
        self.d_loss_tracker = keras.metrics.Mean(name="d_loss")
        self.g_loss_tracker = keras.metrics.Mean(name="g_loss")
        self.seed_generator = keras.random.SeedGenerator(1337)

    @property
    def metrics(self):
        return [self.d_loss_tracker, self.g_loss_tracker]

    def compile(self, d_optimizer, g_optimizer, loss_fn):
        super().compile(**EAGER)
        self.d_optimizer = d_optimizer
        self.g_optimizer = g_optimizer
        self.loss_fn = loss_fn

    def train_step(self, real_images):
        batch_size = ops.shape(real_images)[0]
        noise = keras.random.normal((batch_size, self.latent_dim), seed=self.seed_generator)
        combined = ops.concatenate([self.generator(noise), real_images], axis=0)
        truth = ops.concatenate([ops.ones((batch_size, 1)), ops.zeros((batch_size, 1))], axis=0)
        with tf.GradientTape() as tape:
            d_loss = self.loss_fn(truth, self.discriminator(combined))
        grads = tape.gradient(d_loss, self.discriminator.trainable_weights)
        self.d_optimizer.apply_gradients(
            zip(grads, self.discriminator.trainable_weights, strict=True)
        )
        with tf.GradientTape() as tape:
            fake = self.discriminator(self.generator(noise))
            g_loss = self.loss_fn(ops.zeros((batch_size, 1)), fake)
            g_loss += sum(self.generator.losses)
        grads = tape.gradient(g_loss, self.generator.trainable_weights)
        self.g_optimizer.apply_gradients(zip(grads, self.generator.trainable_weights, strict=True))
        self.d_loss_tracker.update_state(d_loss)
        self.g_loss_tracker.update_state(g_loss)
        return {m.name: m.result() for m in self.metrics}


@stranger(only="tensorflow")
def gan():
    discriminator = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.Conv2D(3, 3, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.GlobalMaxPooling2D(),
            layers.Dense(1),
        ],
        name="discriminator",
    )
    generator = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(8),
            layers.Reshape((2, 2, 2)),
            layers.Conv2DTranspose(1, 4, strides=2, padding="same", activation="sigmoid"),
        ],
        name="generator",
    )
    model = GAN(discriminator, generator, 5)
    model.compile(
        d_optimizer=keras.optimizers.Adam(3e-4),
        g_optimizer=keras.optimizers.AdamW(3e-4, weight_decay=0.1),
        loss_fn=keras.losses.BinaryCrossentropy(from_logits=True),
    )
    model.g_optimizer.exclude_from_weight_decay(var_names=["bias"])
    return fitted(model, data(6, 4, 4, 1), lambda m: m.generator(data(2, 5)))


class Sampling(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(1337)

    def call(self, inputs):
        mean, log_var = inputs
        epsilon = keras.random.normal(ops.shape(mean), seed=self.seed_generator)
        return mean + ops.exp(0.5 * log_var) * epsilon


class VAE(keras.Model):
    def __init__(self, encoder, decoder, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.decoder = decoder
        self.total_loss_tracker = keras.metrics.Mean(name="total_loss")

    @property
    def metrics(self):
        return [self.total_loss_tracker]

    def train_step(self, x):
        with tf.GradientTape() as tape:
            mean, log_var, z = self.encoder(x)
            loss = ops.mean(ops.square(x - self.decoder(z)))
            loss += ops.mean(-0.5 * (1 + log_var - ops.square(mean) - ops.exp(log_var)))
            loss += sum(self.losses)
        grads = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(grads, self.trainable_weights, strict=True))
        self.total_loss_tracker.update_state(loss)
        return {"loss": self.total_loss_tracker.result()}


@stranger(only="tensorflow")
def vae():
    inputs = keras.Input((6,))
    x = layers.Dense(5, activation="relu")(inputs)
    mean, log_var = layers.Dense(2, name="z_mean")(x), layers.Dense(2, name="z_log_var")(x)
    encoder = keras.Model(inputs, [mean, log_var, Sampling()([mean, log_var])], name="encoder")
    latent = keras.Input((2,))
    decoder = keras.Model(latent, layers.Dense(6, activation="sigmoid")(latent), name="decoder")
    model = VAE(encoder, decoder)
    model.compile(optimizer=keras.optimizers.Adam(), **EAGER)
    return fitted(model, data(8, 6), lambda m: m.decoder(m.encoder(data(3, 6))[2]))


class AddLossVAE(keras.Model):
    """As in the guides: the loss is added in `call`."""

    def __init__(self, original_dim, intermediate_dim=4, latent_dim=2, name="autoencoder", **kw):
        super().__init__(name=name, **kw)
        self.original_dim = original_dim
        self.proj = layers.Dense(intermediate_dim, activation="relu")
        self.mean = layers.Dense(latent_dim)
        self.log_var = layers.Dense(latent_dim)
        self.sampling = Sampling()
        self.out = layers.Dense(original_dim, activation="sigmoid")

    def call(self, inputs):
        h = self.proj(inputs)
        mean, log_var = self.mean(h), self.log_var(h)
        self.add_loss(-0.5 * ops.mean(log_var - ops.square(mean) - ops.exp(log_var) + 1))
        return self.out(self.sampling((mean, log_var)))


@stranger
def vae_with_added_loss():
    model = AddLossVAE(6)
    model.compile(keras.optimizers.Adam(1e-3), loss=keras.losses.MeanSquaredError(), **EAGER)
    return trained(model, data(8, 6), data(8, 6), steps=2)


class VectorQuantizer(layers.Layer):
    def __init__(self, num_embeddings, embedding_dim, beta=0.25, **kwargs):
        super().__init__(**kwargs)
        self.embedding_dim = embedding_dim
        self.num_embeddings = num_embeddings
        self.beta = beta
        self.embeddings = self.add_weight(
            shape=(embedding_dim, num_embeddings), initializer="uniform", name="embeddings_vqvae"
        )

    def call(self, x):
        flat = ops.reshape(x, [-1, self.embedding_dim])
        distances = (
            ops.sum(flat**2, axis=1, keepdims=True)
            + ops.sum(self.embeddings**2, axis=0)
            - 2 * ops.matmul(flat, self.embeddings)
        )
        codes = ops.one_hot(ops.argmin(distances, axis=1), self.num_embeddings)
        quantized = ops.reshape(ops.matmul(codes, ops.transpose(self.embeddings)), ops.shape(x))
        self.add_loss(self.beta * ops.mean((ops.stop_gradient(quantized) - x) ** 2))
        self.add_loss(ops.mean((quantized - ops.stop_gradient(x)) ** 2))
        return x + ops.stop_gradient(quantized - x)


class VQVAETrainer(keras.Model):
    def __init__(self, train_variance, latent_dim=3, num_embeddings=4, **kwargs):
        super().__init__(**kwargs)
        self.train_variance = train_variance
        self.vector_quantizer = VectorQuantizer(num_embeddings, latent_dim, name="quantizer")
        self.encoder = keras.Sequential([layers.Conv2D(4, 3, padding="same"), layers.Dense(3)])
        self.decoder = keras.Sequential([layers.Conv2DTranspose(1, 3, padding="same")])

    def call(self, x):
        return self.decoder(self.vector_quantizer(self.encoder(x)))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean((x - y_pred) ** 2) / self.train_variance + sum(self.losses)


@stranger(but="torch")
def vqvae():
    x = data(2, 4, 4, 1)
    model = VQVAETrainer(np.var(x))
    model.compile(optimizer=keras.optimizers.Adam(), **EAGER)
    return trained(model, x, x)


class VariableCodebook(layers.Layer):
    """The codebook of the older example: a variable of TensorFlow's, which Keras doesn't know."""

    def __init__(self, count, width, **kwargs):
        super().__init__(**kwargs)
        w_init = tf.random_uniform_initializer()
        self.codebook = tf.Variable(w_init(shape=(width, count), dtype="float32"), trainable=True)
        self.usage = tf.Variable(tf.zeros((count,)), trainable=False)

    def call(self, x):
        codes = tf.one_hot(tf.argmax(tf.matmul(x, self.codebook), axis=-1), self.codebook.shape[1])
        self.usage.assign_add(tf.reduce_sum(codes, axis=0))
        return tf.matmul(codes, self.codebook, transpose_b=True)


@stranger(only="tensorflow")
def codebook_of_tensorflow():
    model = keras.Sequential([layers.Dense(3), VariableCodebook(4, 3), layers.Dense(1)])
    model.compile("sgd", "mse")
    return trained(model, data(4, 5), data(4, 1))


class DiffusionModel(keras.Model):
    def __init__(self, image_size, widths, block_depth):
        super().__init__()
        self.normalizer = layers.Normalization()
        self.network = denoiser(image_size, widths, block_depth)
        self.ema_network = keras.models.clone_model(self.network)
        self.image_size = image_size

    def compile(self, **kwargs):
        super().compile(**kwargs)
        self.noise_loss_tracker = keras.metrics.Mean(name="n_loss")
        self.image_loss_tracker = keras.metrics.Mean(name="i_loss")

    @property
    def metrics(self):
        return [self.noise_loss_tracker, self.image_loss_tracker]

    def diffusion_schedule(self, times):
        angles = ops.cast(ops.arccos(0.95), "float32") * times
        return ops.sin(angles), ops.cos(angles)

    def denoise(self, noisy, noise_rates, signal_rates, training):
        network = self.network if training else self.ema_network
        noises = network([noisy, noise_rates**2], training=training)
        return noises, (noisy - noise_rates * noises) / signal_rates

    def generate(self, noise, steps):
        images = noise
        for step in range(steps):
            times = ops.ones((len(noise), 1, 1, 1)) - step / steps
            rates = self.diffusion_schedule(times)
            noises, predicted = self.denoise(images, *rates, training=False)
            rates = self.diffusion_schedule(times - 1 / steps)
            images = rates[1] * predicted + rates[0] * noises
        return self.normalizer.mean + images * self.normalizer.variance**0.5

    def train_step(self, images):
        images = self.normalizer(images, training=True)
        noises = keras.random.normal(shape=ops.shape(images))
        times = keras.random.uniform(shape=(ops.shape(images)[0], 1, 1, 1))
        noise_rates, signal_rates = self.diffusion_schedule(times)
        with tf.GradientTape() as tape:
            noisy = signal_rates * images + noise_rates * noises
            predicted, restored = self.denoise(noisy, noise_rates, signal_rates, training=True)
            noise_loss = self.loss(noises, predicted) + sum(self.network.losses)
        grads = tape.gradient(noise_loss, self.network.trainable_weights)
        self.optimizer.apply_gradients(zip(grads, self.network.trainable_weights, strict=True))
        self.noise_loss_tracker.update_state(noise_loss)
        self.image_loss_tracker.update_state(self.loss(images, restored))
        for weight, ema in zip(self.network.weights, self.ema_network.weights, strict=True):
            ema.assign(0.9 * ema + 0.1 * weight)
        return {m.name: m.result() for m in self.metrics}


@keras.saving.register_keras_serializable(package="strangers")
def sinusoidal_embedding(x):
    frequencies = ops.exp(ops.linspace(ops.log(1.0), ops.log(10.0), 2))
    angular = ops.cast(2.0 * math.pi * frequencies, "float32")
    return ops.concatenate([ops.sin(angular * x), ops.cos(angular * x)], axis=3)


def denoiser(image_size, widths, block_depth):
    def residual_block(width):
        def apply(x):
            residual = x if x.shape[3] == width else layers.Conv2D(width, kernel_size=1)(x)
            x = layers.BatchNormalization(center=False, scale=False)(x)
            x = layers.Conv2D(width, kernel_size=3, padding="same", activation="swish")(x)
            return layers.Add()([x, residual])

        return apply

    noisy = keras.Input(shape=(image_size, image_size, 1))
    variances = keras.Input(shape=(1, 1, 1))
    e = layers.Lambda(sinusoidal_embedding, output_shape=(1, 1, 4))(variances)
    e = layers.UpSampling2D(size=image_size, interpolation="nearest")(e)
    x = layers.Concatenate()([layers.Conv2D(widths[0], kernel_size=1)(noisy), e])
    for width in widths:
        for _ in range(block_depth):
            x = residual_block(width)(x)
    x = layers.Conv2D(1, kernel_size=1, kernel_initializer="zeros")(x)
    return keras.Model([noisy, variances], x, name="residual_unet")


@stranger(only="tensorflow")
def ddim():
    images = data(2, 4, 4, 1)
    model = DiffusionModel(4, [3], block_depth=1)
    model.compile(
        optimizer=keras.optimizers.AdamW(1e-3, weight_decay=1e-2),
        loss=keras.losses.mean_absolute_error,
        **EAGER,
    )
    model.normalizer.adapt(images)
    return fitted(model, images, lambda m: m.generate(ops.convert_to_tensor(images), 2))


class GaussianDiffusion:
    """The schedule of the DDPM example: a plain object of arrays."""

    def __init__(self, beta_start=1e-4, beta_end=0.02, timesteps=6):
        self.timesteps = timesteps
        betas = np.linspace(beta_start, beta_end, timesteps, dtype=np.float64)
        self.sqrt_alphas = np.sqrt(np.cumprod(1.0 - betas)).astype("float32")
        self.sqrt_one_minus = np.sqrt(1.0 - np.cumprod(1.0 - betas)).astype("float32")

    def q_sample(self, x_start, t, noise):
        a, b = (
            ops.take(ops.convert_to_tensor(v), t) for v in (self.sqrt_alphas, self.sqrt_one_minus)
        )
        return a[:, None] * x_start + b[:, None] * noise


class DDPM(keras.Model):
    def __init__(self, network, ema_network, timesteps, gdf_util, ema=0.9):
        super().__init__()
        self.network, self.ema_network = network, ema_network
        self.timesteps, self.gdf_util, self.ema = timesteps, gdf_util, ema

    def call(self, x, training=False):
        return (self.network if training else self.ema_network)(x)

    def train_step(self, images):
        t = np.arange(len(images)) % self.timesteps
        with tf.GradientTape() as tape:
            noise = tf.random.stateless_normal(tf.shape(images), seed=(1, 2))
            pred = self.network(self.gdf_util.q_sample(images, t, noise), training=True)
            loss = self.loss(noise, pred)
        gradients = tape.gradient(loss, self.network.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.network.trainable_weights, strict=True))
        for weight, ema_weight in zip(self.network.weights, self.ema_network.weights, strict=True):
            ema_weight.assign(self.ema * ema_weight + (1 - self.ema) * weight)
        return {"loss": loss}


@stranger(only="tensorflow")
def ddpm():
    build = lambda: keras.Sequential([keras.Input((4,)), layers.Dense(4, "swish"), layers.Dense(4)])
    network, ema_network = build(), build()
    ema_network.set_weights(network.get_weights())
    gdf_util = GaussianDiffusion()
    model = DDPM(network, ema_network, 6, gdf_util)
    model.compile(loss=keras.losses.MeanSquaredError(), optimizer=keras.optimizers.Adam(), **EAGER)
    return fitted(model, data(4, 4), lambda m: m(data(2, 4)))


class CycleGan(keras.Model):
    def __init__(self, generator_G, generator_F, discriminator_X, lambda_cycle=10.0):
        super().__init__()
        self.gen_G, self.gen_F, self.disc_X = generator_G, generator_F, discriminator_X
        self.lambda_cycle = lambda_cycle

    def call(self, inputs):
        return (self.disc_X(inputs), self.gen_G(inputs), self.gen_F(inputs))

    def compile(self, gen_G_optimizer, gen_F_optimizer, disc_X_optimizer, gen_loss_fn):
        super().compile(**EAGER)
        self.gen_G_optimizer = gen_G_optimizer
        self.gen_F_optimizer = gen_F_optimizer
        self.disc_X_optimizer = disc_X_optimizer
        self.generator_loss_fn = gen_loss_fn
        self.cycle_loss_fn = keras.losses.MeanAbsoluteError()

    def train_step(self, real_x):
        with tf.GradientTape(persistent=True) as tape:
            fake_y = self.gen_G(real_x, training=True)
            cycled_x = self.gen_F(fake_y, training=True)
            disc = self.disc_X(cycled_x, training=True)
            cycle = self.cycle_loss_fn(real_x, cycled_x) * self.lambda_cycle
            g_loss = self.generator_loss_fn(disc) + cycle
            d_loss = -self.generator_loss_fn(disc) + self.generator_loss_fn(self.disc_X(real_x))
        for loss, net, optimizer in (
            (g_loss, self.gen_G, self.gen_G_optimizer),
            (g_loss, self.gen_F, self.gen_F_optimizer),
            (d_loss, self.disc_X, self.disc_X_optimizer),
        ):
            grads = tape.gradient(loss, net.trainable_variables)
            optimizer.apply_gradients(zip(grads, net.trainable_variables, strict=True))
        return {"G_loss": g_loss, "D_loss": d_loss}


@stranger(only="tensorflow")
def cyclegan():
    net = lambda name: keras.Sequential([keras.Input((3,)), layers.Dense(3)], name=name)
    model = CycleGan(net("G"), net("F"), net("X"))

    def generator_loss_fn(fake):
        return adversarial(tf.ones_like(fake), fake)

    adversarial = keras.losses.MeanSquaredError()
    adam = lambda: keras.optimizers.Adam(learning_rate=2e-4, beta_1=0.5)
    model.compile(adam(), adam(), adam(), gen_loss_fn=generator_loss_fn)
    return fitted(model, data(4, 3), lambda m: m(data(2, 3)))


# ---------------------------------------------------------------- teachers, twins, contrasts


class Distiller(keras.Model):
    def __init__(self, student, teacher):
        super().__init__()
        self.teacher = teacher
        self.student = student

    def compile(self, optimizer, metrics, student_loss_fn, distillation_loss_fn, alpha=0.1, t=3):
        super().compile(optimizer=optimizer, metrics=metrics, **EAGER)
        self.student_loss_fn = student_loss_fn
        self.distillation_loss_fn = distillation_loss_fn
        self.alpha = alpha
        self.temperature = t

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        teacher_pred = self.teacher(x, training=False)
        student_loss = self.student_loss_fn(y, y_pred)
        distillation_loss = self.distillation_loss_fn(
            ops.softmax(teacher_pred / self.temperature, axis=1),
            ops.softmax(y_pred / self.temperature, axis=1),
        ) * (self.temperature**2)
        return self.alpha * student_loss + (1 - self.alpha) * distillation_loss + sum(self.losses)

    def call(self, x):
        return self.student(x)


@stranger
def distiller():
    teacher = keras.Sequential([keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(3)])
    teacher.compile(keras.optimizers.Adam(), keras.losses.SparseCategoricalCrossentropy(True))
    x, y = data(6, 4), labels(6, 3)
    teacher.train_on_batch(x, y)
    teacher.trainable = False
    model = Distiller(keras.models.Sequential([keras.Input((4,)), layers.Dense(3)]), teacher)
    model.compile(
        optimizer=keras.optimizers.Adam(),
        metrics=[keras.metrics.SparseCategoricalAccuracy()],
        student_loss_fn=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        distillation_loss_fn=keras.losses.KLDivergence(),
    )
    return trained(model, x, y)


class DistanceLayer(layers.Layer):
    def call(self, anchor, positive, negative):
        return (
            ops.sum(ops.square(anchor - positive), -1),
            ops.sum(ops.square(anchor - negative), -1),
        )


class SiameseModel(keras.Model):
    def __init__(self, siamese_network, margin=0.5):
        super().__init__()
        self.siamese_network = siamese_network
        self.margin = margin
        self.loss_tracker = keras.metrics.Mean(name="loss")

    def call(self, inputs):
        return self.siamese_network(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        ap, an = y_pred
        return ops.mean(ops.maximum(ap - an + self.margin, 0.0)) + sum(self.losses)


@stranger
def siamese():
    target = keras.Input((4, 4, 1))
    x = layers.Conv2D(2, 3)(target)
    x = layers.BatchNormalization()(layers.Flatten()(x))
    embedding = keras.Model(target, layers.Dense(3)(x), name="Embedding")
    three = [keras.Input((4, 4, 1), name=n) for n in ("anchor", "positive", "negative")]
    distances = DistanceLayer()(*(embedding(each) for each in three))
    model = SiameseModel(keras.Model(three, distances))
    model.compile(optimizer=keras.optimizers.Adam(0.0001), weighted_metrics=[], **EAGER)
    return trained(model, [data(3, 4, 4, 1, seed=n) for n in range(3)], np.zeros(3))


class ContrastiveModel(keras.Model):
    def __init__(self, width=4):
        super().__init__()
        self.temperature = 0.1
        self.contrastive_augmenter = keras.Sequential(
            [layers.Rescaling(1 / 2), layers.GaussianNoise(0.1, seed=3)], name="augmenter"
        )
        self.classification_augmenter = keras.Sequential([layers.GaussianNoise(0.01, seed=4)])
        self.encoder = keras.Sequential([layers.Dense(width, "relu")], name="encoder")
        self.projection_head = keras.Sequential(
            [keras.Input((width,)), layers.Dense(width, "relu"), layers.Dense(width)]
        )
        self.linear_probe = keras.Sequential([layers.Input((width,)), layers.Dense(3)])
        self.encoder.build((None, 5))

    def compile(self, contrastive_optimizer, probe_optimizer, **kwargs):
        super().compile(**kwargs)
        self.contrastive_optimizer = contrastive_optimizer
        self.probe_optimizer = probe_optimizer
        self.probe_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.contrastive_loss_tracker = keras.metrics.Mean(name="c_loss")
        self.probe_accuracy = keras.metrics.SparseCategoricalAccuracy(name="p_acc")

    @property
    def metrics(self):
        return [self.contrastive_loss_tracker, self.probe_accuracy]

    def contrastive_loss(self, one, two):
        one, two = ops.normalize(one, axis=1), ops.normalize(two, axis=1)
        similarities = ops.matmul(one, ops.transpose(two)) / self.temperature
        return keras.losses.sparse_categorical_crossentropy(
            ops.arange(ops.shape(one)[0]), similarities, from_logits=True
        )

    def train_step(self, batch):
        images, truth = batch
        one = self.contrastive_augmenter(images, training=True)
        two = self.contrastive_augmenter(images, training=True)
        with tf.GradientTape() as tape:
            projections = [self.projection_head(self.encoder(each)) for each in (one, two)]
            loss = ops.mean(self.contrastive_loss(*projections))
        weights = self.encoder.trainable_weights + self.projection_head.trainable_weights
        gradients = tape.gradient(loss, weights)
        self.contrastive_optimizer.apply_gradients(zip(gradients, weights, strict=True))
        self.contrastive_loss_tracker.update_state(loss)
        with tf.GradientTape() as tape:
            features = self.encoder(self.classification_augmenter(images, training=True))
            logits = self.linear_probe(features)
            probe_loss = self.probe_loss(truth, logits)
        gradients = tape.gradient(probe_loss, self.linear_probe.trainable_weights)
        self.probe_optimizer.apply_gradients(
            zip(gradients, self.linear_probe.trainable_weights, strict=True)
        )
        self.probe_accuracy.update_state(truth, logits)
        return {m.name: m.result() for m in self.metrics}


def on_pairs(model, x, y, outputs):
    step = lambda model: model.fit(x, y, batch_size=64, epochs=1, verbose=0, shuffle=False)
    step(model)
    return Used(model, outputs, step)


@stranger(only="tensorflow")
def simclr():
    model = ContrastiveModel()
    model.compile(keras.optimizers.Adam(), keras.optimizers.Adam(), **EAGER)
    return on_pairs(
        model, data(4, 5), labels(4, 3), lambda m: m.linear_probe(m.encoder(data(3, 5)))
    )


class NNCLR(ContrastiveModel):
    """Keeps the features of earlier batches in a variable of TensorFlow's."""

    def __init__(self, temperature, queue_size):
        super().__init__()
        self.temperature = temperature
        feature_dimensions = self.encoder.output_shape[1]
        self.feature_queue = tf.Variable(
            tf.math.l2_normalize(tf.random.normal((queue_size, feature_dimensions)), axis=1),
            trainable=False,
        )

    def contrastive_loss(self, one, two):
        nearest = tf.argmax(tf.matmul(one, self.feature_queue, transpose_b=True), axis=1)
        neighbours = tf.gather(self.feature_queue, nearest)
        loss = super().contrastive_loss(neighbours + one - tf.stop_gradient(one), two)
        self.feature_queue.assign(
            tf.concat([one, self.feature_queue[: -len(one)]], axis=0)  # the newest first
        )
        return loss


@stranger(only="tensorflow")
def nnclr():
    model = NNCLR(temperature=0.2, queue_size=10)
    model.compile(keras.optimizers.Adam(), keras.optimizers.Adam(), **EAGER)
    return on_pairs(model, data(4, 5), labels(4, 3), lambda m: (m.encoder(data(3, 5)),))


class BYOL(keras.Model):
    def __init__(self, encoder, momentum=0.9):
        super().__init__()
        self.online = encoder
        self.target = keras.models.clone_model(encoder)
        self.target.set_weights(encoder.get_weights())
        self.target.trainable = False
        self.predictor = keras.Sequential([layers.Dense(4, activation="gelu"), layers.Dense(3)])
        self.momentum = momentum
        self.updates = 0

    def call(self, x):
        return self.predictor(self.online(x)), ops.stop_gradient(self.target(x))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean((y_pred[0] - y_pred[1]) ** 2) + sum(self.losses)

    def train_step(self, *args):
        logs = super().train_step(*args)
        for one, two in zip(self.online.weights, self.target.weights, strict=True):
            two.assign(self.momentum * two + (1 - self.momentum) * one)
        self.updates += 1
        return logs


@stranger(only="tensorflow")
def byol():
    model = BYOL(keras.Sequential([keras.Input((5,)), layers.Dense(3)]))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), weighted_metrics=[], **EAGER)
    return trained(model, data(4, 5), steps=2)


class DeepQ(keras.Model):
    """Two nets, a replay memory, and a random generator of its own."""

    def __init__(self, actions=2, memory=16, seed=3):
        super().__init__()
        make = lambda name: keras.Sequential(
            [keras.Input((4,)), layers.Dense(6, activation="relu"), layers.Dense(actions)],
            name=name,
        )
        self.q, self.q_target = make("q"), make("q_target")
        self.q_target.set_weights(self.q.get_weights())
        self.memory = collections.deque(maxlen=memory)
        self.rng = np.random.default_rng(seed)
        self.epsilon = 1.0

    def call(self, state):
        return self.q(state)

    def act(self, state):
        self.epsilon *= 0.9
        if self.rng.random() < self.epsilon:
            return int(self.rng.integers(2))
        return int(ops.argmax(self(state[None])[0]))

    def learn(self):
        states = np.stack([state for state, _ in self.memory])
        target = ops.max(self.q_target(states), axis=1, keepdims=True)
        truth = np.repeat(ops.convert_to_numpy(target), 2, axis=1)
        self.train_on_batch(states, truth)
        self.q_target.set_weights(self.q.get_weights())


@stranger
def deep_q():
    model = DeepQ()
    model.compile(keras.optimizers.Adam(), keras.losses.Huber(), **EAGER)

    def step(model):
        for state in data(3, 4):
            model.memory.append((state, model.act(state)))
        model.learn()

    step(model)
    return Used(model, lambda m: (m(data(2, 4)), m.q_target(data(2, 4))), step)


# ---------------------------------------------------------------- attention


class Patches(layers.Layer):
    def __init__(self, patch_size):
        super().__init__()
        self.patch_size = patch_size

    def call(self, images):
        patches = ops.image.extract_patches(images, size=self.patch_size)
        shape = ops.shape(patches)
        return ops.reshape(patches, (shape[0], shape[1] * shape[2], shape[3]))


class PatchEncoder(layers.Layer):
    def __init__(self, num_patches, projection_dim):
        super().__init__()
        self.num_patches = num_patches
        self.projection = layers.Dense(units=projection_dim)
        self.position_embedding = layers.Embedding(num_patches, projection_dim)

    def call(self, patch):
        positions = ops.expand_dims(ops.arange(0, self.num_patches, step=1), axis=0)
        return self.projection(patch) + self.position_embedding(positions)


@stranger
def vision_transformer():
    inputs = keras.Input(shape=(4, 4, 1))
    x = PatchEncoder(4, 4)(Patches(2)(inputs))
    for _ in range(2):
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        y = layers.MultiHeadAttention(num_heads=2, key_dim=2, dropout=0.1, seed=1)(y, y)
        x = layers.Add()([y, x])
        y = layers.Dense(4, activation=keras.activations.gelu)(x)
        x = layers.Add()([layers.Dropout(0.1, seed=2)(y), x])
    outputs = layers.Dense(3)(layers.Flatten()(x))
    model = keras.Model(inputs=inputs, outputs=outputs)
    model.compile(
        optimizer=keras.optimizers.AdamW(learning_rate=1e-3, weight_decay=1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[
            keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
            keras.metrics.SparseTopKCategoricalAccuracy(2, name="top-2"),
        ],
        **EAGER,
    )
    return trained(model, data(2, 4, 4, 1), labels(2, 3))


class Perceiver(keras.Model):
    def __init__(self, patch_size, latent_dim, projection_dim, blocks, units):
        super().__init__()
        self.latent_dim, self.projection_dim = latent_dim, projection_dim
        self.blocks, self.units, self.patch_size = blocks, units, patch_size

    def build(self, input_shape):
        self.patcher = Patches(self.patch_size)
        self.patch_encoder = PatchEncoder(4, self.projection_dim)
        self.latent_array = self.add_weight(
            shape=(self.latent_dim, self.projection_dim),
            initializer="random_normal",
            trainable=True,
            name="latents",
        )
        self.cross_attention = self.attention()
        self.transformer = feedforward(self.projection_dim)
        self.global_average_pooling = layers.GlobalAveragePooling1D()
        self.classification_head = layers.Dense(units=self.units, name="logits")
        super().build(input_shape)

    def attention(self):
        inputs = {
            "latent_array": layers.Input(shape=(self.latent_dim, self.projection_dim)),
            "data_array": layers.Input(shape=(4, self.projection_dim)),
        }
        query = layers.Dense(self.projection_dim)(inputs["latent_array"])
        key = layers.Dense(self.projection_dim)(inputs["data_array"])
        x = layers.Attention(use_scale=True)([query, key], return_attention_scores=False)
        return keras.Model(inputs=inputs, outputs=layers.Add()([x, query]))

    def call(self, inputs):
        encoded = self.patch_encoder(self.patcher(inputs))
        cross = {
            "latent_array": ops.expand_dims(self.latent_array, 0),
            "data_array": encoded,
        }
        for _ in range(self.blocks):
            latent = self.transformer(self.cross_attention(cross))
            cross["latent_array"] = latent
        return self.classification_head(self.global_average_pooling(latent))


def feedforward(width):
    return keras.Sequential([layers.Dense(width, "gelu"), layers.Dropout(0.1, seed=5)])


@stranger
def perceiver():
    model = Perceiver(2, 3, 4, 2, 3)
    model.compile(
        optimizer=keras.optimizers.Lamb(1e-3, weight_decay=1e-2),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **EAGER,
    )
    return trained(model, data(2, 4, 4, 1), labels(2, 3))


class MLPMixerLayer(layers.Layer):
    def __init__(self, num_patches, hidden_units, dropout_rate, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.mlp1 = keras.Sequential(
            [layers.Dense(num_patches, "gelu"), layers.Dropout(rate=dropout_rate, seed=1)]
        )
        self.mlp2 = keras.Sequential([layers.Dense(hidden_units, "gelu"), layers.Dense(4)])
        self.normalize = layers.LayerNormalization(epsilon=1e-6)

    def build(self, input_shape):
        return super().build(input_shape)

    def call(self, inputs):
        x = ops.transpose(self.normalize(inputs), (0, 2, 1))
        x = ops.transpose(self.mlp1(x), (0, 2, 1)) + inputs
        return x + self.mlp2(x)


@stranger
def mlp_mixer():
    blocks = keras.Sequential([MLPMixerLayer(3, 4, 0.1) for _ in range(2)])
    inputs = layers.Input(shape=(3, 4))
    x = layers.GlobalAveragePooling1D()(blocks(layers.Dense(4)(inputs)))
    model = keras.Model(inputs, layers.Dense(2)(x))
    model.compile(keras.optimizers.AdamW(1e-3, weight_decay=0.1), "mse", **EAGER)
    model.optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return trained(model, data(2, 3, 4), data(2, 2))


class TransformerEncoder(layers.Layer):
    def __init__(self, embed_dim, dense_dim, num_heads, **kwargs):
        super().__init__(**kwargs)
        self.embed_dim, self.dense_dim, self.num_heads = embed_dim, dense_dim, num_heads
        self.attention = layers.MultiHeadAttention(num_heads=num_heads, key_dim=embed_dim)
        self.dense_proj = keras.Sequential(
            [layers.Dense(dense_dim, activation="relu"), layers.Dense(embed_dim)]
        )
        self.layernorm_1 = layers.LayerNormalization()
        self.supports_masking = True

    def call(self, inputs, mask=None):
        padding = None if mask is None else ops.cast(mask[:, None, :], dtype="int32")
        x = self.attention(query=inputs, value=inputs, key=inputs, attention_mask=padding)
        x = self.layernorm_1(inputs + x)
        return x + self.dense_proj(x)

    def get_config(self):
        config = super().get_config()
        config.update(
            {"embed_dim": self.embed_dim, "dense_dim": self.dense_dim, "num_heads": self.num_heads}
        )
        return config


class PositionalEmbedding(layers.Layer):
    def __init__(self, sequence_length, vocab_size, embed_dim, **kwargs):
        super().__init__(**kwargs)
        self.token_embeddings = layers.Embedding(input_dim=vocab_size, output_dim=embed_dim)
        self.position_embeddings = layers.Embedding(input_dim=sequence_length, output_dim=embed_dim)
        self.sequence_length = sequence_length

    def call(self, inputs):
        length = ops.shape(inputs)[-1]
        return self.token_embeddings(inputs) + self.position_embeddings(ops.arange(0, length, 1))

    def compute_mask(self, inputs, mask=None):
        return ops.not_equal(inputs, 0)


class TransformerDecoder(layers.Layer):
    def __init__(self, embed_dim, latent_dim, num_heads, **kwargs):
        super().__init__(**kwargs)
        self.attention_1 = layers.MultiHeadAttention(num_heads, embed_dim)
        self.attention_2 = layers.MultiHeadAttention(num_heads, embed_dim)
        self.dense_proj = keras.Sequential(
            [layers.Dense(latent_dim, "relu"), layers.Dense(embed_dim)]
        )
        self.supports_masking = True

    def call(self, inputs, mask=None):
        inputs, encoded = inputs
        x = inputs + self.attention_1(query=inputs, value=inputs, key=inputs, use_causal_mask=True)
        x, _ = self.attention_2(query=x, value=encoded, return_attention_scores=True)
        return x + self.dense_proj(x)


@stranger
def translation():
    encoder_inputs = keras.Input(shape=(None,), dtype="int64", name="encoder_inputs")
    encoded = TransformerEncoder(4, 6, 2)(PositionalEmbedding(5, 9, 4)(encoder_inputs))
    decoder_inputs = keras.Input(shape=(None,), dtype="int64", name="decoder_inputs")
    encoded_inputs = keras.Input(shape=(None, 4), name="decoder_state_inputs")
    x = PositionalEmbedding(5, 9, 4)(decoder_inputs)
    x = TransformerDecoder(4, 6, 2)([x, encoded_inputs])
    outputs = layers.Dense(9, activation="softmax")(layers.Dropout(0.5, seed=1)(x))
    decoder = keras.Model([decoder_inputs, encoded_inputs], outputs)
    model = keras.Model(
        {"encoder_inputs": encoder_inputs, "decoder_inputs": decoder_inputs},
        decoder([decoder_inputs, encoded]),
        name="transformer",
    )
    model.compile(
        "rmsprop", loss=keras.losses.SparseCategoricalCrossentropy(ignore_class=0), **EAGER
    )
    tokens = labels(10, 9).reshape(2, 5)
    return trained(model, {"encoder_inputs": tokens, "decoder_inputs": tokens}, tokens)


loss_fn = keras.losses.SparseCategoricalCrossentropy(reduction=None)
loss_tracker = keras.metrics.Mean(name="loss")


class MaskedLanguageModel(keras.Model):
    """Its loss and its metric are globals of the notebook."""

    def train_step(self, inputs):
        features, truth, sample_weight = inputs
        with tf.GradientTape() as tape:
            predictions = self(features, training=True)
            loss = ops.mean(loss_fn(truth, predictions, sample_weight=sample_weight))
            loss += sum(self.losses)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        loss_tracker.update_state(loss, sample_weight=None)
        return {"loss": loss_tracker.result()}

    @property
    def metrics(self):
        return [loss_tracker]


@stranger(only="tensorflow")
def masked_language_model():
    inputs = layers.Input((5,), dtype="int64")
    x = layers.Embedding(9, 4, name="word_embedding")(inputs)
    x = x + np.arange(20, dtype="float32").reshape(5, 4)  # positions, a constant of the graph
    attended = layers.MultiHeadAttention(2, 2, name="encoder_0_attention")(x, x, x)
    x = layers.LayerNormalization(epsilon=1e-6)(x + attended)
    ffn = keras.Sequential([layers.Dense(6, "relu"), layers.Dense(4)], name="encoder_0_ffn")
    outputs = layers.Dense(9, name="mlm_cls", activation="softmax")(ffn(x))
    model = MaskedLanguageModel(inputs, outputs, name="masked_bert_model")
    model.compile(optimizer=keras.optimizers.Adam(1e-3), **EAGER)
    tokens = labels(10, 9).reshape(2, 5)
    weights = (tokens > 4).astype("float32")
    step = lambda m: m.train_on_batch(tokens, tokens, sample_weight=weights)
    step(model)
    return Used(model, lambda m: m(tokens), step)


class WindowAttention(layers.Layer):
    """Swin's: the index of relative positions is an array, its table a weight."""

    def __init__(self, dim, window_size, num_heads, qkv_bias=True, dropout_rate=0.0, **kwargs):
        super().__init__(**kwargs)
        self.dim, self.window_size, self.num_heads = dim, window_size, num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = layers.Dense(dim * 3, use_bias=qkv_bias)
        self.dropout = layers.Dropout(dropout_rate)
        self.proj = layers.Dense(dim)
        coords = np.stack(np.meshgrid(np.arange(window_size), np.arange(window_size)))
        coords = coords.reshape(2, -1)
        relative = (coords[:, :, None] - coords[:, None, :]).transpose([1, 2, 0])
        relative = relative + window_size - 1
        relative[:, :, 0] *= 2 * window_size - 1
        self.relative_position_index = relative.sum(-1)

    def build(self, input_shape):
        count = (2 * self.window_size - 1) ** 2
        self.relative_position_bias_table = self.add_weight(
            shape=(count, self.num_heads), initializer="uniform", name="relative_table"
        )

    def call(self, x, mask=None):
        size, heads = self.window_size**2, self.num_heads
        qkv = ops.reshape(self.qkv(x), (-1, size, 3, heads, self.dim // heads))
        q, k, v = (ops.transpose(qkv[:, :, n], (0, 2, 1, 3)) for n in range(3))
        attention = (q * self.scale) @ ops.transpose(k, (0, 1, 3, 2))
        bias = ops.take(
            self.relative_position_bias_table, self.relative_position_index.reshape(-1), axis=0
        )
        attention += ops.transpose(ops.reshape(bias, (size, size, -1)), (2, 0, 1))
        x = ops.transpose(self.dropout(ops.softmax(attention)) @ v, (0, 2, 1, 3))
        return self.proj(ops.reshape(x, (-1, size, self.dim)))


@stranger
def swin():
    inputs = keras.Input((4, 4))
    x = WindowAttention(4, window_size=2, num_heads=2)(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))
    model.compile(keras.optimizers.AdamW(1e-3, weight_decay=1e-2), "mse", **EAGER)
    return trained(model, data(2, 4, 4), data(2, 2))


class GraphAttention(layers.Layer):
    def __init__(self, units, kernel_initializer="glorot_uniform", kernel_regularizer=None, **kw):
        super().__init__(**kw)
        self.units = units
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(input_shape[0][-1], self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            name="kernel",
        )
        self.kernel_attention = self.add_weight(
            shape=(self.units * 2, 1), initializer=self.kernel_initializer, name="attention"
        )
        self.built = True

    def call(self, inputs):
        node_states, edges = inputs
        states = ops.matmul(node_states, self.kernel)
        pairs = ops.reshape(ops.take(states, edges, axis=0), (ops.shape(edges)[0], -1))
        scores = ops.exp(ops.clip(ops.leaky_relu(ops.matmul(pairs, self.kernel_attention)), -2, 2))
        values = ops.take(states, edges[:, 1], axis=0) * scores
        return ops.segment_sum(values, edges[:, 0], num_segments=4)


class GraphAttentionNetwork(keras.Model):
    def __init__(self, node_states, edges, hidden_units, num_layers, output_dim, **kwargs):
        super().__init__(**kwargs)
        self.node_states = node_states
        self.edges = edges
        self.preprocess = layers.Dense(hidden_units, activation="relu")
        self.attention_layers = [GraphAttention(hidden_units) for _ in range(num_layers)]
        self.output_layer = layers.Dense(output_dim)

    def call(self, indices):
        x = self.preprocess(self.node_states)
        for layer in self.attention_layers:
            x = layer([x, self.edges]) + x
        return ops.take(self.output_layer(x), indices, axis=0)


@stranger
def graph_attention():
    edges = ops.convert_to_tensor(np.array([[0, 1], [1, 2], [2, 3], [3, 0]]), dtype="int32")
    model = GraphAttentionNetwork(ops.convert_to_tensor(data(4, 3)), edges, 4, 2, 3)
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=keras.optimizers.SGD(1e-2, momentum=0.9),
        **EAGER,
    )
    return trained(model, np.arange(4, dtype="int32"), labels(4, 3))


class MixtureOfExperts(layers.Layer):
    def __init__(self, num_experts, width):
        self.num_experts, self.width = num_experts, width
        super().__init__()
        self.experts = [layers.Dense(width, "relu") for _ in range(num_experts)]
        self.router = layers.Dense(num_experts, use_bias=False)
        self.load = np.zeros(num_experts)
        self.seen = []

    def call(self, inputs):
        gates = ops.softmax(self.router(inputs))
        self.add_loss(1e-2 * ops.mean(ops.sum(ops.square(gates), -1)))
        self.seen.append(len(self.seen))
        self.load += 1 / self.num_experts
        out = ops.stack([expert(inputs) for expert in self.experts], axis=-1)
        return ops.sum(out * gates[:, None, :], axis=-1)


@stranger
def mixture_of_experts():
    model = keras.Sequential([MixtureOfExperts(3, 4), layers.Dense(1)])
    model.compile("adam", "mse", **EAGER)
    return trained(model, data(4, 5), data(4, 1))


# ---------------------------------------------------------------- sequences, words, users


class CTCLayer(layers.Layer):
    def __init__(self, name=None):
        super().__init__(name=name)
        self.loss_fn = lambda truth, predicted, lengths: ops.ctc_loss(
            truth, predicted, lengths[1], lengths[0], mask_index=0
        )

    def call(self, y_true, y_pred):
        batch = ops.shape(y_pred)[0]
        lengths = [ops.full((batch,), y_true.shape[1]), ops.full((batch,), y_pred.shape[1])]
        lengths = [ops.cast(length, "int32") for length in lengths]
        lengths = (lengths[0], lengths[1])
        self.add_loss(ops.mean(self.loss_fn(y_true, y_pred, (lengths[1], lengths[0]))))
        return y_pred


@stranger
def ctc():
    images = layers.Input(shape=(6, 3), name="image")
    truth = layers.Input(name="label", shape=(2,), dtype="int32")
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(images)
    x = layers.Dense(5, name="dense2")(x)
    output = CTCLayer(name="ctc_loss")(truth, x)
    model = keras.models.Model([images, truth], output, name="ocr_model_v1")
    model.compile(optimizer=keras.optimizers.Adam(), **EAGER)
    x = {"image": data(2, 6, 3), "label": labels(4, 4).reshape(2, 2) + 1}
    step = lambda m: m.train_on_batch(x)
    step(model)
    return Used(model, lambda m: m(x, training=False), step)


class RecommenderNet(keras.Model):
    def __init__(self, num_users, num_movies, embedding_size, **kwargs):
        super().__init__(**kwargs)
        self.num_users, self.num_movies = num_users, num_movies
        self.user_embedding = layers.Embedding(
            num_users,
            embedding_size,
            embeddings_initializer="he_normal",
            embeddings_regularizer=keras.regularizers.l2(1e-6),
        )
        self.user_bias = layers.Embedding(num_users, 1)
        self.movie_embedding = layers.Embedding(num_movies, embedding_size)

    def call(self, inputs):
        user, movie = (
            self.user_embedding(inputs[:, 0]),
            self.movie_embedding(inputs[:, 1]),
        )
        dot = ops.sum(user * movie, axis=1, keepdims=True)
        return ops.nn.sigmoid(dot + self.user_bias(inputs[:, 0]))


@stranger
def recommender():
    model = RecommenderNet(6, 7, 3)
    model.compile("adam", keras.losses.BinaryCrossentropy(), **EAGER)
    model.fit(labels(8, 6).reshape(4, 2), np.ones((4, 1)), verbose=0)
    return trained(model, labels(8, 6).reshape(4, 2), np.ones((4, 1)))


class TwoTowers(keras.Model):
    """Users by names, films by numbers, and an index of neighbours that is made after training."""

    def __init__(self, users, films):
        super().__init__()
        self.user_model = keras.Sequential(
            [layers.StringLookup(vocabulary=users), layers.Embedding(len(users) + 1, 3)]
        )
        self.film_model = keras.Sequential(
            [layers.IntegerLookup(vocabulary=films), layers.Embedding(len(films) + 1, 3)]
        )
        self.task = keras.losses.MeanSquaredError()
        self.index = None

    def call(self, features):
        user, film = self.user_model(features["user"]), self.film_model(features["film"])
        return ops.sum(user * film, axis=-1)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return self.task(y, y_pred) + sum(self.losses)


@stranger(only="tensorflow")
def two_towers():
    model = TwoTowers(["ann", "bob", "eve"], [11, 12, 15])
    model.compile(keras.optimizers.Adagrad(0.1))
    x = {"user": tf.constant(["ann", "eve", "joe"]), "film": tf.constant([11, 15, 99])}
    used = trained(model, x, np.ones(3, "float32"))
    model.index = {"films": np.array([11, 12]), "vectors": model.film_model(tf.constant([11, 12]))}
    return used


@stranger(only="tensorflow")
def text_classifier():
    vectorize = layers.TextVectorization(max_tokens=12, output_sequence_length=4)
    vectorize.adapt(["a cat sat", "the dog ran", "a dog"])
    inputs = keras.Input(shape=(1,), dtype="string")
    x = layers.Embedding(12, 4, mask_zero=True)(vectorize(inputs))
    x = layers.Bidirectional(layers.GRU(3))(x)
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"], **EAGER)
    return trained(model, tf.constant([["a cat"], ["the dog"]]), np.array([[0.0], [1.0]]))


@stranger
def structured_data():
    x = {"age": data(6, 1), "kind": labels(6, 3).reshape(6, 1)}
    age = layers.Normalization()
    age.adapt(x["age"])
    kind = layers.CategoryEncoding(num_tokens=3, output_mode="one_hot")
    inputs = {"age": keras.Input((1,)), "kind": keras.Input((1,), dtype="int32")}
    features = layers.Concatenate()([age(inputs["age"]), kind(inputs["kind"])])
    model = keras.Model(inputs, layers.Dense(1)(layers.Dense(4, "relu")(features)))
    model.compile("adam", "mse", **EAGER)
    return trained(model, x, data(6, 1))


class MinimalRNNCell(layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.state_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), initializer="uniform", name="kernel"
        )
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, self.units), initializer="uniform", name="recurrent_kernel"
        )

    def call(self, inputs, states):
        output = ops.matmul(inputs, self.kernel) + ops.matmul(states[0], self.recurrent_kernel)
        return output, [output]


@stranger
def custom_cells():
    inputs = keras.Input((3, 2))
    cells = [MinimalRNNCell(3), MinimalRNNCell(2)]
    x = layers.RNN(cells, return_sequences=True)(inputs)
    x = layers.RNN(layers.StackedRNNCells([layers.LSTMCell(2), layers.GRUCell(3)]))(x)
    model = keras.Model(inputs, layers.Dense(1)(x))
    model.compile("sgd", "mse", **EAGER)
    return trained(model, data(2, 3, 2), data(2, 1))


@stranger(but="torch")
def stateful_recurrent():
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(2, 3, 2)),
            layers.LSTM(3, stateful=True, return_sequences=True),
            layers.GRU(2, stateful=True),
            layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse", **EAGER)
    model.predict(data(2, 3, 2), verbose=0)
    return trained(model, data(2, 3, 2), data(2, 1))


# ---------------------------------------------------------------- how people keep things


class Kind(enum.Enum):
    SUM = 1
    MEAN = 2


@dataclass
class Settings:
    widths: list = field(default_factory=lambda: [4, 3])
    kind: Kind = Kind.MEAN
    rate: float = 0.25


class Slotted:
    __slots__ = ("counts", "name")

    def __init__(self):
        self.counts, self.name = collections.Counter(a=1), "slotted"


class PlainState(keras.Model):
    """Its state is kept in attributes of all kinds."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.blocks = {}
        for n, width in enumerate(config.widths):
            self.blocks[f"block{n}"] = [layers.Dense(width), layers.BatchNormalization()]
        self.head = (layers.Dense(2), layers.Dropout(0.2, seed=1))
        self.running = np.zeros(2)
        self.steps = 0
        self.log = {}
        self.recent = collections.deque([1.0], maxlen=3)
        self.slotted = Slotted()
        self.tags = {"a", "b"}
        self.ranges = [range(3), slice(1, 2), 1j, b"x", frozenset({1})]

    def call(self, x, training=False):
        for block in self.blocks.values():
            for layer in block:
                x = layer(x)
        x = self.head[1](self.head[0](x), training=training)
        return x * self.config.rate if self.config.kind is Kind.MEAN else x

    def note(self, value):
        self.running *= 0.9
        self.running += value
        self.steps += 1
        self.log.setdefault("values", []).append(value)
        self.recent.append(value)
        self.slotted.counts["a"] += 1
        self.tags.add(f"step{self.steps}")


@stranger
def state_in_plain_attributes():
    model = PlainState(Settings())
    model.compile("adam", "mse", **EAGER)
    x, y = data(4, 3), data(4, 2)

    def step(model):
        model.train_on_batch(x, y)
        model.note(float(model.steps) + 0.5)

    step(model)
    step(model)
    return Used(model, lambda m: m(x, training=False), step)


class Point(typing.NamedTuple):
    left: Any
    right: Any


class NamedInputs(keras.Model):
    def __init__(self, units):
        super().__init__()
        self.left, self.right = layers.Dense(units), layers.Dense(units)
        self.last = None

    def call(self, point, training=None, scale=1.0):
        if isinstance(point, dict):
            point = Point(point["left"], point["right"])
        self.last = Point(scale, training)
        both = Point(self.left(point.left), self.right(point.right))
        return {"sum": both.left + both.right, "pair": (both.left, [both.right])}


@stranger
def named_inputs():
    model = NamedInputs(3)
    point = Point(data(2, 4), data(2, 2))
    model(point, scale=2.0)

    def step(model):
        inputs = {"left": point.left, "right": point.right}
        for layer, x in ((model.left, point.left), (model.right, point.right)):
            layer.kernel.assign(layer.kernel * 0.5 + ops.mean(x))
        model(inputs)

    return Used(model, lambda m: m(point), step)


class LazyLayers(keras.Model):
    """Its layers are made when it is called first."""

    def __init__(self, width):
        super().__init__()
        self.width = width
        self.embed = layers.Dense(4)
        self.stack = None
        self.by_shape = {}

    def call(self, x):
        x = self.embed(x)
        if self.stack is None:
            self.stack = [layers.Dense(self.width, name="first"), layers.LayerNormalization()]
        for layer in self.stack:
            x = layer(x)
        if x.shape[-1] not in self.by_shape:
            self.by_shape[x.shape[-1]] = layers.Dense(2, name="lazy")
        return self.by_shape[x.shape[-1]](x)


@stranger
def made_on_first_call():
    model = LazyLayers(3)
    model(data(2, 4))
    model.compile("adam", "mse", **EAGER)
    return trained(model, data(2, 4), data(2, 2))


class Lambdas(keras.Model):
    def __init__(self, scale):
        super().__init__()
        self.inner = layers.Dense(3, activation=lambda x: ops.relu(x) * scale)
        self.gate = layers.Dense(
            3, activation=functools.partial(ops.leaky_relu, negative_slope=0.3)
        )
        self.post = lambda x: self.gate(x) + scale
        self.shift = functools.partial(np.multiply, scale)
        self.act = keras.ops.gelu
        self.method = self.inner.call

    def call(self, x):
        return self.act(self.post(self.inner(x))) + self.shift(1.0)


@stranger
def lambdas_and_partials():
    model = Lambdas(0.5)
    model.compile("adam", "mse", **EAGER)
    return trained(model, data(2, 4), data(2, 3))


def closing_over(inner, scale):
    norm = layers.LayerNormalization()

    def block(x):
        return norm(inner(x)) * scale

    return block


class Closures(keras.Model):
    """Functions that close over layers; a list of hooks that close over the model itself."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)
        self.last = layers.Dense(1)
        self.block = closing_over(self.dense, 2.0)
        self.calls = 0

        def count(x):
            self.calls += 1
            return x

        self.hooks = [count, lambda x: self.last(x)]

    def call(self, x):
        x = self.block(x)
        for hook in self.hooks:
            x = hook(x)
        return x


@stranger
def closures_over_layers():
    model = Closures()
    model.block(data(2, 4))  # what it closes over is built here, and is no part of the model
    model.compile("adam", "mse", **EAGER)
    return trained(model, data(2, 4), data(2, 1))


class Compiled(keras.Model):
    """Keeps functions that TensorFlow has traced."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)
        self.counter = tf.Variable(0, trainable=False)
        self.fast = tf.function(self._slow, reduce_retracing=True)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def _slow(self, x):
        self.counter.assign_add(1)
        return self.dense(x)

    @traced
    def traced(self, x):
        return self.dense(x) * 2.0

    def call(self, x):
        return self.fast(x) + self.traced(x)


@stranger(only="tensorflow")
def traced_functions():
    model = Compiled()
    model(data(2, 4))
    model.compile("adam", "mse")
    return trained(model, data(2, 4), data(2, 3))


class Keyed(keras.Model):
    """Looks things up by its layers, and by their ids and names."""

    def __init__(self):
        super().__init__()
        self.first, self.second = layers.Dense(3), layers.Dense(3)
        self.rates = {id(self.first): 0.1, id(self.second): 0.2}
        self.seen = {id(self.first)}
        object.__setattr__(self, "scales", {self.first: 2.0, self.second: 3.0})
        self.order = [self.second.name, self.first.name]

    def call(self, x):
        for layer in (self.first, self.second):
            x = layer(x) * self.scales[layer] + self.rates[id(layer)]
            if id(layer) in self.seen:
                x = x + 1.0
        return x


@stranger
def keyed_by_layers():
    model = Keyed()
    model.compile("adam", "mse", **EAGER)
    return trained(model, data(2, 4), data(2, 3))


class Parent(keras.Model):
    """Children that know their parent, a lock, random generators, a weak dictionary."""

    def __init__(self, seed):
        super().__init__()
        self.dense = layers.Dense(3)
        object.__setattr__(self.dense, "parent", weakref.ref(self))
        object.__setattr__(self.dense, "owner", self)
        self.lock = threading.RLock()
        self.local = threading.local()
        self.local.depth = 1
        self.rng = np.random.default_rng(seed)
        self.old = np.random.RandomState(seed)
        self.event = threading.Event()
        self.noise = self.rng.normal(size=3).astype("float32")

    def call(self, x):
        with self.lock:
            assert self.dense.parent() is self
            assert self.dense.owner is self
            return self.dense(x) + self.noise

    def redraw(self):
        self.noise[...] = self.rng.normal(size=3) + self.old.normal(size=3)
        self.event.set()


@stranger(but="torch")
def locks_and_generators():
    model = Parent(3)
    model.compile("adam", "mse", **EAGER)
    x, y = data(2, 4), data(2, 3)

    def step(model):
        model.redraw()
        model.train_on_batch(x, y)

    step(model)
    return Used(model, lambda m: m(x), step)


class Encoder(keras.Model):
    """A Functional model with a constructor of its own, as people wrap backbones."""

    def __init__(self, size, depth=2, *, name="encoder"):
        inputs = keras.Input((size,))
        x, skips = inputs, []
        for n in range(depth):
            x = layers.Dense(size, activation="relu", name=f"dense{n}")(x)
            skips.append(x)
        super().__init__(inputs, [x, *skips], name=name)
        self.size, self.depth = size, depth
        self.last = self.layers[-1]
        self.first_feature = keras.Model(self.inputs, self.get_layer("dense0").output)


class Head(keras.Model):
    def __init__(self, encoder, classes):
        x = layers.Dense(classes, name="logits")(encoder(encoder.input)[0])
        super().__init__(encoder.input, x)
        self.encoder = encoder
        self.temperature = 2.0

    def scaled(self, x):
        return self(x) / self.temperature


@stranger
def nested_functional_subclasses():
    model = Head(Encoder(4), 2)
    model.compile("adam", "mse", **EAGER)
    used = trained(model, data(2, 4), data(2, 2))
    used.outputs = lambda m: (m.scaled(data(2, 4)), m.encoder.first_feature(data(2, 4)))
    return used


@stranger
def shared_backbone():
    inputs = keras.Input((4,))
    backbone = keras.Model(inputs, layers.Dense(3, "relu")(layers.Dense(4)(inputs)), name="body")
    other = keras.Model(inputs, layers.Dense(5, name="other")(backbone(inputs)))
    other.compile("adam", "mse", **EAGER)
    other.train_on_batch(data(2, 4), data(2, 5))
    two = [keras.Input((4,)), keras.Input((4,))]
    x = layers.Concatenate()([backbone(two[1]), backbone(two[0])])
    model = keras.Model(two, layers.Dense(1)(x))
    model.compile("adam", "mse", **EAGER)
    return trained(model, [data(2, 4), data(2, 4, seed=2)], data(2, 1))


@stranger
def called_outside():
    dense, norm = layers.Dense(4, activation="tanh"), layers.BatchNormalization()
    early = keras.Input((4,))
    dense(norm(dense(early)))
    inputs = keras.Input((4,))
    x = norm(dense(inputs))
    model = keras.Model(inputs, dense(x))
    dense(model.output)
    keras.Model(inputs, x)
    model.compile("sgd", "mse", **EAGER)
    return trained(model, data(3, 4), data(3, 4))


class TiedAutoencoder(keras.Model):
    """One layer uses another's kernel; both are kept in lists, one twice."""

    def __init__(self, width):
        super().__init__()
        self.encoder = layers.Dense(width)
        self.all = [self.encoder, self.encoder]
        self.tied = Tied(self.encoder)

    def call(self, x):
        return self.tied(self.all[1](x))


class Tied(layers.Layer):
    def __init__(self, dense, **kwargs):
        super().__init__(**kwargs)
        self.dense = dense

    def build(self, input_shape):
        self.offset = self.add_weight(shape=(4,), initializer="zeros", name="bias")

    def call(self, x):
        return ops.matmul(x, ops.transpose(self.dense.kernel)) + self.offset


@stranger
def tied_weights():
    model = TiedAutoencoder(3)
    model.compile("adam", "mse", **EAGER)
    return trained(model, data(2, 4), data(2, 4))


class Guarded(keras.Model):
    """A class with attribute access of its own and a base that is abstract and generic."""

    def __init__(self, units):
        super().__init__()
        self.extras = {"gain": 3.0}
        self.dense = layers.Dense(units)

    def __getattr__(self, name):
        extras = self.__dict__.get("extras", {})
        if name in extras:
            return extras[name]
        raise AttributeError(name)

    def __len__(self):
        return 0  # so the model is false

    def __eq__(self, other):
        return isinstance(other, Guarded) and self.gain == other.gain

    def __hash__(self):
        return hash("guarded")

    @functools.cached_property
    def table(self):
        return np.arange(3.0, dtype="float32")

    @property
    def width(self):
        return self.dense.units

    def call(self, x):
        return self.dense(x) * self.gain + self.table


Thing = typing.TypeVar("Thing")


class Abstract(abc.ABC, typing.Generic[Thing]):
    @abc.abstractmethod
    def scaled(self, x): ...


class GenericLayer(layers.Layer, Abstract[int]):
    def __init__(self, units, /):
        super().__init__()
        self.units = units
        self.inner = layers.Dense(units)

    def scaled(self, x):
        return x * 0.5

    def call(self, x):
        return self.scaled(self.inner(x))


@stranger(but="torch")
def unusual_classes():
    model = Guarded(3)
    model.compile("adam", "mse", **EAGER)
    return trained(model, data(2, 4), data(2, 3))


@stranger
def abstract_layers():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, GenericLayer(2)(GenericLayer(3)(inputs)))
    model.compile("adam", "mse", **EAGER)
    return trained(model, data(2, 4), data(2, 2))


class Gradients(keras.Model):
    """Functional submodels over its own layers, made after the layers: features and a probe."""

    def __init__(self):
        super().__init__()
        self.body = keras.Sequential(
            [keras.Input((4, 4, 1)), layers.Conv2D(2, 3, name="conv"), layers.GlobalMaxPooling2D()]
        )
        self.features = keras.Model(self.body.inputs, self.body.get_layer("conv").output)
        self.probe = layers.Dense(2)
        self.symbolic = self.body.outputs[0]

    def call(self, x):
        return self.probe(self.body(x))


class Encoding(keras.Model):
    """Takes Keras's arguments, so that Keras tells its config and how it was compiled."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


@stranger
def model_as_a_layer():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(1)(Encoding()(inputs)))
    model.compile("sgd", "mse", **EAGER)
    return trained(model, data(4, 4), data(4, 1))


class Projection(layers.Layer):
    """Is made anew from its config with all of its weights."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = layers.Dense(units)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Adapter(layers.Layer):
    """Stands in the place of a layer, which it holds and adds to."""

    def __init__(self, held, **kwargs):
        super().__init__(**kwargs)
        self.held = held
        self.held.trainable = False
        self.addition = layers.Dense(held.units)

    def call(self, x):
        return self.held(x) + self.addition(x)


class Task(keras.Model):
    """Tells the model that it is made of as its author made it, without the adapter."""

    def __init__(self, backbone, **kwargs):
        super().__init__(inputs=backbone.inputs, outputs=backbone.outputs, **kwargs)
        self.backbone = backbone

    def get_config(self):
        return {"backbone": keras.saving.serialize_keras_object(self.backbone)}


@stranger
def adapted():
    inputs = keras.Input((4,))
    backbone = keras.Model(inputs, Projection(3)(Projection(3)(inputs)), name="backbone")
    for each in backbone.layers[1:]:
        each._tracker.unlock()
        each.dense = Adapter(each.dense)
        each._tracker.lock()
    model = Task(backbone)
    model(data(1, 4))
    model.compile("sgd", "mse", **EAGER)
    return trained(model, data(4, 4), data(4, 3))


class Namesakes(keras.Model):
    """Holds two models of one name, of which one follows the other's weights."""

    def __init__(self, make):
        super().__init__()
        self.network = make(name="network")
        self.average = make(name="network")
        self.average.set_weights(self.network.get_weights())

    def call(self, x):
        return self.network(x) - self.average(x)


@stranger
def namesakes():
    def perceptron(name):
        inputs = keras.Input((4,))
        return keras.Model(inputs, layers.Dense(1)(layers.Dense(3)(inputs)), name=name)

    model = Namesakes(perceptron)
    model.compile("sgd", "mse", **EAGER)
    return trained(model, data(4, 4), data(4, 1))


@stranger
def submodel_of_own_layers():
    model = Gradients()
    model.compile("adam", "mse", **EAGER)
    used = trained(model, data(2, 4, 4, 1), data(2, 2))
    used.outputs = lambda m: (m(data(2, 4, 4, 1)), m.features(data(2, 4, 4, 1)))
    return used


@stranger
def masked_by_a_tensor():
    inputs = keras.Input((3, 4))
    mask = ops.any(ops.not_equal(inputs, 0.0), axis=-1)
    x = layers.Lambda(lambda t, mask=None: t * ops.cast(mask, "float32")[..., None], (3, 4))(
        inputs, mask=mask
    )
    x = layers.MultiHeadAttention(1, 2)(x, x, attention_mask=mask[:, None, :])
    model = keras.Model(inputs, layers.Dense(1)(layers.Flatten()(x)))
    model.compile("adam", "mse", **EAGER)
    return trained(model, data(2, 3, 4), data(2, 1))


@stranger
def weights_in_the_graph():
    """Tied weights as people write them in a graph: a weight is an argument of an operation."""
    embedding = layers.Embedding(6, 4)
    embedding.build()
    scale = keras.Variable(np.full(4, 0.5, "float32"), name="scale")
    inputs = keras.Input((3,), dtype="int32")
    x = layers.LayerNormalization()(embedding(inputs)) * scale
    logits = ops.matmul(x, ops.transpose(embedding.embeddings))
    logits = ops.add(logits, np.arange(6, dtype="float32"))
    model = keras.Model(inputs, layers.Softmax()(logits))
    model.compile("adam", "sparse_categorical_crossentropy", **EAGER)
    tokens = labels(6, 6).reshape(2, 3)
    return trained(model, tokens, tokens)


class Counting(layers.Layer):
    """Changes in every call, symbolic or not, what it keeps in arrays, lists and objects."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)
        self.load = np.zeros(3)
        self.log = {"calls": [], "inner": {"n": 0}}
        self.rng = np.random.default_rng(5)
        self.settings = Settings()
        self.drawn = []

    def call(self, x):
        self.load += 1
        self.log["calls"].append(len(self.log["calls"]))
        self.log["inner"]["n"] += 1
        self.settings.rate *= 0.5
        self.settings.widths.append(1)
        self.drawn.append(float(self.rng.random()))
        return self.dense(x)


@stranger
def counts_its_calls():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(1)(Counting()(inputs)))
    model.compile("sgd", "mse", **EAGER)
    return trained(model, data(2, 4), data(2, 1))


# ---------------------------------------------------------------- precision, adapters, optimizers


@stranger
def low_rank():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, "relu"), layers.Dense(2)])
    model.compile("adam", "mse", **EAGER)
    model.train_on_batch(data(2, 4), data(2, 2))
    model.layers[0].enable_lora(2)
    model.compile("adam", "mse", **EAGER)
    return trained(model, data(2, 4), data(2, 2))


class LowRank(keras.Model):
    """LoRA inside of a model that builds nothing by itself."""

    def __init__(self):
        super().__init__()
        self.tokens = layers.Embedding(6, 4)
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(self.tokens(x))


@stranger
def low_rank_inside():
    model = LowRank()
    tokens = labels(4, 6).reshape(2, 2)
    model(tokens)
    model.tokens.enable_lora(2)
    model.dense.enable_lora(1)
    model.compile("adam", "mse", **EAGER)
    return trained(model, tokens, data(2, 2, 3))


@stranger
def quantized():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, "relu"), layers.Dense(2)])
    model(data(2, 4))
    model.quantize("int8")
    model.layers[-1].enable_lora(1)
    model.compile("sgd", "mse", **EAGER)
    return trained(model, data(2, 4), data(2, 2))


class Half(keras.Model):
    """Layers of several precisions; one policy is given as an object that two layers share."""

    def __init__(self):
        super().__init__(dtype="float32")
        policy = keras.DTypePolicy("mixed_bfloat16")
        self.low = layers.Dense(3, dtype="bfloat16", trainable=False)  # as a backbone is kept
        self.mixed = layers.Dense(3, dtype=policy)
        self.again = layers.LayerNormalization(dtype=policy)
        self.out = layers.Dense(1, dtype="float32")

    def call(self, x):
        return self.out(self.again(self.mixed(self.low(x))))


@stranger
def half_precision():
    model = Half()
    model.compile("adam", "mse", **EAGER)
    return trained(model, data(2, 4), data(2, 1))


@stranger
def excluded_from_decay():
    inputs = keras.Input((4,))
    x = layers.LayerNormalization()(layers.Dense(4, name="embed")(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    adam = keras.optimizers.AdamW(1e-2, weight_decay=0.5)
    adam.exclude_from_weight_decay(
        var_list=[model.get_layer("embed").kernel], var_names=["bias", "gamma"]
    )
    model.compile(keras.optimizers.LossScaleOptimizer(adam, dynamic_growth_steps=3), "mse", **EAGER)
    return trained(model, data(2, 4), data(2, 2), steps=2)


@stranger
def averaged_and_accumulated():
    model = keras.Sequential([layers.Dense(3), layers.Dense(1)])
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    model.compile(
        keras.optimizers.SGD(
            schedule, momentum=0.9, use_ema=True, ema_momentum=0.8, gradient_accumulation_steps=2
        ),
        keras.losses.Huber(delta=0.7),
        metrics=["mae", keras.metrics.RootMeanSquaredError()],
        **EAGER,
    )
    return trained(model, data(2, 4), data(2, 1), steps=3)


class FocalLoss(keras.losses.Loss):
    def __init__(self, weights, gamma=2.0):
        super().__init__(name="focal")
        self.weights, self.gamma = weights, gamma

    def call(self, truth, predicted):
        error = ops.abs(truth - predicted)
        return ops.mean(self.weights * error**self.gamma, axis=-1)


class Confusion(keras.metrics.Metric):
    def __init__(self, classes, name="confusion"):
        super().__init__(name=name)
        self.matrix = self.add_weight(shape=(classes,), initializer="zeros", name="matrix")
        self.history = []

    def update_state(self, truth, predicted, sample_weight=None):
        self.matrix.assign_add(ops.sum(ops.abs(truth - predicted), axis=0))

    def result(self):
        return ops.sum(self.matrix)


@stranger(but="torch")
def losses_and_metrics_of_ones_own():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, {"a": layers.Dense(2)(inputs), "b": layers.Dense(3)(inputs)})
    model.compile(
        optimizer=keras.optimizers.RMSprop(),
        loss={"a": FocalLoss(np.array([1.0, 2.0], "float32")), "b": lambda t, p: ops.abs(t - p)},
        loss_weights={"a": 1.0, "b": 0.5},
        metrics={"a": [Confusion(2)], "b": ["mse"]},
        **EAGER,
    )
    return trained(model, data(2, 4), {"a": data(2, 2), "b": data(2, 3)})


@stranger(but="jax")  # a loss that is added inside leaks a tracer, in the original
def rematerialized():
    with keras.RematScope(mode="full"):
        dense = layers.Dense(4, "relu")
        deep = AddLossVAE(4, name="deep")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(dense(inputs)) + deep(inputs)[:, :2])
    model.compile("sgd", "mse", **EAGER)
    return trained(model, data(2, 4), data(2, 2))


class Regularized(keras.Model):
    """Some penalties are there already, one of them a function, one on activations."""

    def __init__(self):
        super().__init__()
        self.a = layers.Dense(
            3, kernel_regularizer="l1", bias_regularizer=keras.regularizers.L2(0.1)
        )
        self.b = layers.Dense(3, activity_regularizer=keras.regularizers.L1(0.01))
        self.c = layers.Dense(1, trainable=False)

    def call(self, x):
        return self.c(self.b(self.a(x)))


@stranger
def regularized_already():
    model = Regularized()
    model.compile("sgd", "mse", **EAGER)
    return trained(model, data(2, 4), data(2, 1))


class OwnTorch(layers.Layer):
    """Holds a module, a buffer, a parameter and a generator of PyTorch's."""

    def __init__(self, width):
        super().__init__()
        self.linear = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.BatchNorm1d(width))
        self.offset = torch.nn.Parameter(torch.ones(width))
        self.running = torch.zeros(width)
        self.dense = layers.Dense(width)

    def call(self, x):
        return self.linear(x) + self.offset + self.dense(x) + self.running


@stranger(only="torch")
def modules_of_torch():
    model = keras.Sequential([OwnTorch(3), layers.Dense(1)])
    model.compile("adam", "mse")
    return trained(model, data(4, 4), data(4, 1))


@stranger(only="torch")
def frozen_in_torch():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(1)])
    model.layers[0].kernel.value.requires_grad_(False)
    outputs = lambda m: (m(data(2, 4)), [bool(p.requires_grad) for p in m.parameters()])

    def step(model):
        model.zero_grad()
        ops.sum(model(data(2, 4)) ** 2).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad

    step(model)
    return Used(model, outputs, step)


class Arrays(layers.Layer):
    """Keeps arrays of the backend's own, and a function that was compiled from a method."""

    def __init__(self, width):
        super().__init__()
        self.table = ops.convert_to_tensor(data(width))
        self.tables = {"a": [ops.convert_to_tensor(data(width, seed=2))], "n": (1, data(2))}
        self.dense = layers.Dense(width)

    def call(self, x):
        return self.dense(x) + self.table + self.tables["a"][0]


@stranger
def arrays_of_the_backend():
    model = keras.Sequential([Arrays(3), layers.Dense(1)])
    model.compile("sgd", "mse", **EAGER)
    return trained(model, data(4, 4), data(4, 1))
