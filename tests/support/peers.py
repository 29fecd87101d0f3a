"""What the field decays, as predicates on Keras's layers and variables, and as policies.

A peer's predicate is written from its own words (torch's `weight` is Keras's `kernel`, `gamma` or
`scale`; its `bias` in a normalization is `beta`), and knows nothing of graphwd. It gives the
multiple of the decay that a variable has: 0 for none.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keras import layers

DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
BATCH = (layers.BatchNormalization, layers.GroupNormalization, layers.LayerNormalization)


@dataclass(frozen=True)
class Peer:
    """One line of the table: what a user has, what he writes, and what the peer itself does.

    Attributes:
        have: what the user has, as the table says it.
        write: Python for a list of rules, of which there are at most three.
        multiple: the peer's predicate: layer, variable and the variable's place in the model.
        models: classes of keras-hub's backbones and of keras.applications that it is tried on.
        told: whether the table has the line.
    """

    have: str
    write: str
    multiple: Callable[[Any, Any, str], float]
    models: tuple[str, ...]
    told: bool = True


def normalizes(layer) -> bool:
    return "Norm" in type(layer).__name__


def is_bias(variable) -> bool:
    """torch's `.bias`, but for that of a normalization."""
    return "bias" in variable.name


def rank(variable) -> int:
    return len(variable.shape)


def timm(layer, variable, place):
    return not (rank(variable) <= 1 or is_bias(variable))


def timm_vit(layer, variable, place):
    listed = ("position_embedding", "class_token", "distillation_token")
    return timm(layer, variable, place) and not {layer.name, variable.name} & set(listed)


def timm_layers(blocks: str, stem: str, depth: int):
    """timm's layer_decay=0.75: the stem is layer 0, block n is n + 1, and the head is the last."""

    def multiple(layer, variable, place):
        found = re.search(blocks, place)
        number = int(found[1]) if found else 0 if re.search(stem, place) else depth + 1
        return timm_vit(layer, variable, place) * 0.75 ** (depth + 1 - number)

    return multiple


def timm_stages(blocks: str, down: str, stem: str, depths: tuple[int, ...], shift: int):
    """The same where blocks stand in stages; a stage's downsampling is of its first block."""

    def multiple(layer, variable, place):
        found, between = re.search(blocks, place), re.search(down, place)
        if found:
            number = sum(depths[: int(found[1])]) + int(found[2]) + 1
        elif between:
            number = sum(depths[: int(between[1]) + shift]) + 1
        else:
            number = 0 if re.search(stem, place) else sum(depths) + 1
        return timm(layer, variable, place) * 0.75 ** (sum(depths) + 1 - number)

    return multiple


def trainer(layer, variable, place):
    """No LayerNorm, and no name with bias, layernorm, rmsnorm, norm in it."""
    t5_bias = type(layer).__name__ == "T5MultiHeadAttention"  # relative_attention_bias
    return not (normalizes(layer) or is_bias(variable) or t5_bias)


def no_decay(layer, variable, place):
    """`no_decay = ["bias", "LayerNorm.weight"]` of the run scripts: LayerNorm.bias is a bias."""
    return not (isinstance(layer, layers.LayerNormalization) or is_bias(variable))


def norm_decay(layer, variable, place):
    return not isinstance(layer, BATCH)


def bias_decay(layer, variable, place):
    return isinstance(layer, BATCH) or not is_bias(variable)


def dwconv_decay(layer, variable, place):
    return 0.1 if isinstance(layer, DEPTHWISE) else 1


def flat_decay(layer, variable, place):
    return rank(variable) != 1


def custom_keys_swin(layer, variable, place):
    table = variable.name in ("relative_position_bias_table", "absolute_pos_embed")
    return not (isinstance(layer, layers.LayerNormalization) or table)


def custom_keys_head(layer, variable, place):
    return 10 if "predictions" in place else 1


def keras_names(*words):
    """`var_names`: regular expressions that are searched in the variable's own name."""
    return lambda layer, variable, place: not re.search("|".join(words), variable.name)


def detectron2(layer, variable, place):
    return not isinstance(layer, BATCH) and not is_bias(variable)


def dinov2(layer, variable, place):
    scale = type(layer).__name__ == "DINOV2LayerScale"  # ls1.gamma
    return not (is_bias(variable) or normalizes(layer) or scale)


def big_vision(layer, variable, place):
    """`[(".*/head/kernel", 100.0), (".*/kernel", 1.0)]`: of kernels, the head's a hundredfold."""
    if variable.name != "kernel":
        return 0
    return 100 if "predictions" in place else 1


def open_clip(layer, variable, place):
    return not (rank(variable) < 2 or normalizes(layer) or is_bias(variable))


def above_one(layer, variable, place):
    return rank(variable) > 1


def all_of_them(layer, variable, place):
    return 1


RANK = 'Rule(decay, ndim=">=2", roles="!*bias*")'
LANGUAGE = ("BertBackbone", "T5Backbone", "LlamaBackbone", "MixtralBackbone", "GptOssBackbone")
VISION = ("ViTBackbone", "SwinTransformerBackbone", "ConvNeXtTiny")
EVERY = 'Rule(decay, roles="!activity")'
NORMS = 'layers=["BatchNormalization", "GroupNormalization", "LayerNormalization"]'

PEERS = [
    Peer("timm: `weight_decay`", RANK, timm, (*LANGUAGE, *VISION, "DeiTBackbone")),
    Peer(
        "timm: with `no_weight_decay()` of a ViT",
        'Rule(decay, ndim=">=2", roles=["!*bias*", "!*token*"], paths="!*pos*_embed*")',
        timm_vit,
        ("ViTBackbone", "DeiTBackbone"),
    ),
    Peer(
        "timm: `layer_decay=0.75`, ViT",
        'Rule(decay, ndim=">=2", roles=["!*bias*", "!*token*"], paths="!*pos*_embed*"), '
        'Rule(times(0.75, blocks="*transformer_block_#/*"))',
        timm_layers(r"transformer_block_(\d+)/", "patching_and_embedding", 2),
        ("ViTImageClassifier",),
    ),
    Peer(
        "timm: `layer_decay=0.75`, Swin",
        RANK + ', Rule(times(0.75, blocks="*stage_#/blocks_#/*"))',
        timm_stages(r"stage_(\d+)/blocks_(\d+)", r"stage_(\d+)/down", "patch_emb", (1, 2), 1),
        ("SwinTransformerBackbone with a head",),
    ),
    Peer(
        "timm: `layer_decay=0.75`, ConvNeXt",
        RANK + ', Rule(times(0.75, blocks="*stage_#_block_#_*"))',
        timm_stages(r"stage_(\d+)_block_(\d+)", r"sampling_conv_(\d+)", "_stem", (3, 3, 9, 3), 1),
        ("ConvNeXtTiny",),
    ),
    Peer(
        "Hugging Face: `Trainer(weight_decay=...)`",
        'Rule(decay, roles=["!*bias*", "!activity"], layers="!*Norm*", '
        'paths="!*attention/embeddings")',
        trainer,
        (*LANGUAGE, *VISION),
    ),
    Peer(
        'Hugging Face: `no_decay = ["bias", "LayerNorm.weight"]`',
        'Rule(decay, roles=["!*bias*", "!activity"], layers="!LayerNormalization")',
        no_decay,
        ("BertBackbone", "RobertaBackbone", "ViTBackbone"),
    ),
    Peer(
        "mmengine: `norm_decay_mult=0`",
        f"{EVERY}, Rule(times(0), {NORMS})",
        norm_decay,
        ("ResNetBackbone", "SegFormerBackbone", *VISION),
    ),
    Peer(
        "mmengine: `bias_decay_mult=0`",
        f'{EVERY}, Rule(times(0), roles="*bias*")',
        lambda *of: bias_decay(*of),
        ("ResNetBackbone", "SegFormerBackbone", "ViTBackbone"),
    ),
    Peer(
        "mmengine: `dwconv_decay_mult=0.1`",
        f'{EVERY}, Rule(times(0.1), layers="DepthwiseConv2D")',
        dwconv_decay,
        ("MobileNetBackbone", "SegFormerBackbone"),
    ),
    Peer(
        "mmengine: `flat_decay_mult=0`",
        f"{EVERY}, Rule(times(0), ndim=1)",
        flat_decay,
        ("ResNetBackbone", *VISION),
    ),
    Peer(
        "mmengine: `custom_keys={'norm': dict(decay_mult=0), "
        "'relative_position_bias_table': dict(decay_mult=0)}`",
        f'{EVERY}, Rule(times(0), layers="LayerNormalization"), '
        'Rule(times(0), roles="relative_position_bias_table")',
        custom_keys_swin,
        ("SwinTransformerBackbone",),
    ),
    Peer(
        "mmengine: `custom_keys={'head': dict(decay_mult=10)}`",
        f'{EVERY}, Rule(times(10), paths="predictions/*")',
        custom_keys_head,
        ("ViTImageClassifier",),
    ),
    Peer(
        'Keras: `exclude_from_weight_decay(var_names=["bias"])`',
        'Rule(decay, roles=["!*bias*", "!activity"])',
        keras_names("bias"),
        (*LANGUAGE, *VISION, "ResNetBackbone"),
    ),
    Peer(
        'Keras: `exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])`',
        'Rule(decay, roles=["!*bias*", "!*gamma*", "!*beta*", "!activity"])',
        keras_names("bias", "gamma", "beta"),
        ("BertBackbone", "ResNetBackbone", *VISION),
    ),
    Peer("nanoGPT, LLaMA", RANK, timm, ("GPT2Backbone", *LANGUAGE), told=False),
    Peer(
        "DINOv2: `wd_multiplier`",
        f'{EVERY}, Rule(times(0), roles="*bias*"), '
        'Rule(times(0), layers=["*Norm*", "DINOV2LayerScale"])',
        dinov2,
        ("DINOV2Backbone",),
    ),
    Peer(
        "big_vision: `wd_mults`, the head's a hundredfold",
        'Rule(decay, roles="kernel"), Rule(times(100), paths="predictions/*")',
        big_vision,
        ("ViTImageClassifier",),
    ),
    Peer(
        "open_clip",
        'Rule(decay, ndim=">=2", roles="!*bias*", layers="!*Norm*")',
        open_clip,
        ("CLIPBackbone",),
    ),
    Peer(
        "detectron2: `WEIGHT_DECAY_NORM = WEIGHT_DECAY_BIAS = 0`",
        f'{EVERY}, Rule(times(0), {NORMS}), Rule(times(0), roles="*bias*")',
        detectron2,
        ("ResNetBackbone", "SwinTransformerBackbone", "ViTDetBackbone"),
    ),
    Peer(
        "ultralytics: neither normalization nor biases",
        'Rule(decay, roles=["!*bias*", "!activity"], layers="!*Norm*")',
        lambda layer, variable, place: not (normalizes(layer) or is_bias(variable)),
        ("CSPNetBackbone", "ResNetBackbone"),
        told=False,
    ),
    Peer(
        "Scenic: `ndim > 1`",
        'Rule(decay, ndim=">1")',
        above_one,
        ("ViTBackbone", "ResNetBackbone"),
        told=False,
    ),
    Peer(
        'Model Garden: `exclude_from_weight_decay=["LayerNorm", "layer_norm", "bias"]`',
        'Rule(decay, roles=["!*bias*", "!activity"], layers="!LayerNormalization")',
        no_decay,
        ("BertBackbone", "AlbertBackbone"),
    ),
    Peer(
        "`optax.adamw` without a mask; DETR",
        EVERY,
        all_of_them,
        ("LlamaBackbone", "T5Backbone", "DFineBackbone", "ConvNeXtTiny"),
    ),
]
