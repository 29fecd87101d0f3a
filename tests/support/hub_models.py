# Builders of tiny keras-hub models: every backbone family, the tasks, and inputs for them.
"""The tables of keras-hub models that the tests rewrite.

`BACKBONES` and `TASKS` map a public class name of `keras_hub.models` to a builder without
arguments; `inputs_for` makes the arrays that such a model takes. `VARIANTS` has more backbones of
the same classes, with other parts inside. `NOT_BUILDABLE` says which public classes are left out
(`public_classes` lists them all), and `NOT_CALLABLE`, `NOT_RELOADABLE`, `CALLS_CHANGE_WEIGHTS`
and `SLOW` what to expect of the rest without any rewriting.
"""

import functools
import importlib
import inspect
import io
import itertools
from collections.abc import Callable
from typing import Any

import keras
import keras_hub
import numpy as np
import sentencepiece

VOCABULARY = 96
SEQUENCE = 8
IMAGE = 32


class Part:
    """A model or layer that is an argument of another: built anew each time."""

    def __init__(self, name: str, /, **changes: Any) -> None:
        self.name = name
        self.changes = changes

    def build(self) -> Any:
        arguments = BACKBONE_ARGUMENTS.get(self.name, {}) | self.changes
        return find_class(self.name)(**{key: resolve(value) for key, value in arguments.items()})


class Config(Part):
    """Like `Part`, for arguments that take the config of the part instead of the part."""

    def build(self) -> Any:
        return super().build().get_config()


def find_class(name: str) -> Any:
    """Returns the class of a public name, or of `module:Name` below keras-hub's models."""
    module, _, attribute = name.rpartition(":")
    if module:
        return getattr(importlib.import_module(f"keras_hub.src.models.{module}"), attribute)
    namespaces = (keras_hub.models, keras_hub.layers, keras_hub.tokenizers)
    return next(getattr(space, name) for space in namespaces if hasattr(space, name))


def listed(names: str) -> list[str]:
    """Splits a table of names."""
    return names.split()


def resolve(value: Any) -> Any:
    """Builds the parts in an argument; everything else stays as it is."""
    if isinstance(value, Part):
        return value.build()
    if isinstance(value, dict):
        return {key: resolve(item) for key, item in value.items()}
    return value


# Arguments that many families share. Dropout stays at each family's default.
STACK = {"num_layers": 2, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16}
TEXT = {"vocabulary_size": VOCABULARY, **STACK}
SHORT = {"max_sequence_length": 4 * SEQUENCE}
ENCODER = TEXT | SHORT
GROUPED = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 2,
    "num_query_heads": 2,
    "num_key_value_heads": 1,
    "hidden_dim": 8,
    "intermediate_dim": 16,
}
GEMMA = GROUPED | {"head_dim": 4}
EXPERTS = {"num_experts": 2, "top_k": 1}
SQUARE = {"image_shape": (IMAGE, IMAGE, 3)}
PATCHES = {**STACK, **SQUARE, "patch_size": 8}
TEXT_TOWER = ENCODER | {"embedding_dim": 8}
HYBRID = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
    "linear_conv_kernel_dim": 2,
    "partial_rotary_factor": 0.5,
}
TWO_STACKS = {
    f"{side}_{key}": value
    for side in ("encoder", "decoder")
    for key, value in {
        "hidden_dim": 8,
        "intermediate_dim": 16,
        "num_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "layer_types": ["sliding_attention", "full_attention"],
    }.items()
} | {"vocabulary_size": VOCABULARY, "sliding_window": 4}
SMOL = {
    "vocabulary_size": VOCABULARY,
    "hidden_dim": 8,
    "intermediate_dim": 16,
    "num_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "rope_layer_enabled_list": [True, False],
    "layer_types": ["full_attention", "full_attention"],
    "mlp_bias": False,
    "layer_norm_epsilon": 1e-6,
    "max_position_embeddings": 4 * SEQUENCE,
    "rope_theta": 10000.0,
    "partial_rotary_factor": 1.0,
}
ESM = ENCODER | {"pad_token_id": 0}
DETR = {"num_layers": 1, "hidden_dim": 8, "intermediate_dim": 16, "num_heads": 2}
RESNET = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 8, 8, 8],  # the class insists on 64
    "stackwise_num_blocks": [1, 1, 1, 1],
    "stackwise_num_strides": [1, 2, 2, 2],
    "block_type": "basic_block",
}

BACKBONE_ARGUMENTS: dict[str, dict[str, Any]] = {
    "AlbertBackbone": ENCODER | {"embedding_dim": 4},
    "BASNetBackbone": {
        "image_encoder": Part(
            "ResNetBackbone",
            image_shape=(None, None, 3),
            input_conv_filters=[4],
            block_type="bottleneck_block",
        ),
        "num_classes": 1,
        "image_shape": (2 * IMAGE, 2 * IMAGE, 3),
        "projection_filters": 4,
    },
    "BLIP2Backbone": {
        "vision_encoder": Part(
            "blip2.blip2_vision_encoder:BLIP2VisionEncoder",
            **STACK,
            image_size=IMAGE,
            patch_size=8,
            use_patch_bias=True,
            use_class_token=True,
            use_mha_bias=True,
            use_mlp_bias=True,
            dropout_rate=0.0,
            layer_norm_epsilon=1e-6,
            initializer_range=0.02,
        ),
        "qformer": Part(
            "blip2.blip2_qformer:BLIP2QFormer",
            **STACK,
            num_query_tokens=2,
            vision_dim=8,
            cross_attention_frequency=2,
            dropout=0.1,
            layer_norm_epsilon=1e-6,
        ),
        "language_model": Part(
            "blip2.blip2_custom_opt:BLIP2CustomOPT",
            **ENCODER,
            num_query_tokens=2,
            dropout=0.1,
            qformer_hidden_dim=8,
        ),
    },
    "BartBackbone": ENCODER,
    "BertBackbone": ENCODER,
    "BloomBackbone": TEXT,
    "CLIPBackbone": {
        "vision_encoder": Part("CLIPVisionEncoder"),
        "text_encoder": Part("CLIPTextEncoder"),
        "projection_dim": 8,
    },
    "CLIPTextEncoder": TEXT_TOWER,
    "CLIPVisionEncoder": PATCHES,
    "CSPNetBackbone": SQUARE
    | {
        "stem_filters": 4,
        "stem_kernel_size": 3,
        "stem_strides": 1,
        "stackwise_depth": [1, 1],
        "stackwise_strides": [1, 2],
        "stackwise_num_filters": [4, 8],
        "block_type": "dark_block",
        "stage_type": "csp",
        "block_ratio": [0.5],
    },
    "DFineBackbone": {
        "backbone": Part("HGNetV2Backbone", out_features=["stage1", "stage2"]),
        "decoder_in_channels": [8, 8],
        "encoder_hidden_dim": 8,
        "num_labels": 4,
        "num_denoising": 0,
        "learn_initial_query": False,
        "num_queries": 6,
        "anchor_image_size": (IMAGE, IMAGE),
        "feat_strides": [4, 8],
        "num_feature_levels": 2,
        "hidden_dim": 8,
        "encoder_in_channels": [8, 16],
        "encode_proj_layers": [1],
        "num_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "num_encoder_layers": 1,
        "hidden_expansion": 1.0,
        "depth_multiplier": 0.34,
        "eval_idx": -1,
        "num_decoder_layers": 1,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 16,
        "decoder_n_points": [2, 2],
        "lqe_hidden_dim": 8,
        "num_lqe_layers": 2,
        "out_features": ["stage1", "stage2"],
        "image_shape": (IMAGE, IMAGE, 3),
        "seed": 0,
    },
    "DINOV2Backbone": PATCHES | {"position_embedding_shape": (IMAGE, IMAGE, 3)},
    "DINOV3Backbone": PATCHES,
    "DebertaV3Backbone": ENCODER | {"bucket_size": 4},
    "DeepLabV3Backbone": {
        "image_encoder": Part("ResNetBackbone"),
        "spatial_pyramid_pooling_key": "P5",
        "low_level_feature_key": "P2",
        "upsampling_size": 8,
        "dilation_rates": [1, 2],
        "projection_filters": 4,
    },
    "DeiTBackbone": PATCHES,
    "DenseNetBackbone": {"stackwise_num_repeats": [1, 1], "growth_rate": 4, **SQUARE},
    "DepthAnythingBackbone": {
        "image_encoder": Part(
            "DINOV2Backbone",
            num_layers=4,
            image_shape=(2 * IMAGE, 2 * IMAGE, 3),
            position_embedding_shape=(2 * IMAGE, 2 * IMAGE, 3),
        ),
        "reassemble_factors": [4, 2, 1, 0.5],
        "neck_hidden_dims": [4, 4, 4, 4],
        "fusion_hidden_dim": 4,
        "head_hidden_dim": 4,
        "head_in_index": -1,
        "feature_keys": ["stage1", "stage2", "stage3", "stage4"],
    },
    "DistilBertBackbone": ENCODER,
    "ESMBackbone": ESM,
    "EdRecBackbone": {
        "vocab_size": VOCABULARY,
        "num_layers_enc": 1,
        "num_layers_dec": 1,
        "hidden_dim": 8,
        "intermediate_dim": 16,
        "num_heads": 2,
    },
    "EfficientNetBackbone": {
        "stackwise_width_coefficients": [1.0] * 3,
        "stackwise_depth_coefficients": [1.0] * 3,
        "stackwise_kernel_sizes": [3, 3, 3],
        "stackwise_num_repeats": [1, 1, 1],
        "stackwise_input_filters": [8, 8, 8],
        "stackwise_output_filters": [8, 8, 8],
        "stackwise_expansion_ratios": [1, 2, 2],
        "stackwise_squeeze_and_excite_ratios": [0.0, 0.25, 0.25],
        "stackwise_strides": [1, 2, 2],
        "stackwise_block_types": ["fused", "unfused", "v1"],
        "input_shape": (IMAGE, IMAGE, 3),
    },
    "ElectraBackbone": {"vocab_size": VOCABULARY, **STACK, **SHORT, "embedding_dim": 4},
    "FNetBackbone": {key: value for key, value in ENCODER.items() if key != "num_heads"},
    "FalconBackbone": {
        "vocabulary_size": VOCABULARY,
        "num_layers": 2,
        "num_attention_heads": 2,
        "hidden_dim": 8,
        "intermediate_dim": 32,
    },
    "FluxBackbone": {
        "input_channels": 4,
        "hidden_size": 8,
        "mlp_ratio": 2,
        "num_heads": 2,
        "depth": 1,
        "depth_single_blocks": 1,
        "axes_dim": [2, 2],
        "theta": 100,
        "use_bias": True,
        "guidance_embed": True,
        "image_shape": (SEQUENCE, 4),
        "text_shape": (SEQUENCE, 4),
        "image_ids_shape": (SEQUENCE, 2),
        "text_ids_shape": (SEQUENCE, 2),
        "y_shape": (4,),
    },
    "GPT2Backbone": ENCODER,
    "GPTNeoXBackbone": ENCODER | {"rotary_percentage": 0.5},
    "Gemma3Backbone": GEMMA
    | {
        "image_size": 16,
        "vision_encoder": Part(
            "gemma3.gemma3_vision_encoder:Gemma3VisionEncoder",
            **STACK,
            image_size=16,
            patch_size=4,
            pool_size=2,
            output_dim=8,
        ),
    },
    "Gemma3nBackbone": {
        "text_vocab_size": VOCABULARY,
        "text_hidden_size": 8,
        "num_hidden_layers": 2,
        "pad_token_id": 0,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "intermediate_size": [16, 16],
        "hidden_activation": "gelu_approximate",
        "layer_types": ["full_attention", "sliding_attention"],
        "sliding_window": 4,
        "rope_theta": 10000.0,
        "max_position_embeddings": 4 * SEQUENCE,
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 2,
        "altup_num_inputs": 2,
        "laurel_rank": 1,
    },
    "Gemma4Backbone": GEMMA
    | {
        "image_size": 16,
        "sliding_window_pattern": 2,
        "sliding_window_size": 4,
    },
    "GemmaBackbone": GEMMA,
    "GptOssBackbone": GROUPED | EXPERTS | {"head_dim": 4, "sliding_window": 4},
    "HGNetV2Backbone": SQUARE
    | {
        "depths": [1, 1],
        "embedding_size": 4,
        "hidden_sizes": [8, 16],
        "stem_channels": [3, 4, 4],
        "hidden_act": "relu",
        "use_learnable_affine_block": True,
        "stackwise_stage_filters": [[4, 4, 8, 1, 1, 3], [8, 4, 16, 1, 2, 3]],
        "apply_downsample": [False, True],
        "use_lightweight_conv_block": [False, True],
    },
    "Llama3Backbone": GROUPED,
    "LlamaBackbone": GROUPED,
    "MetaCLIP2Backbone": {
        "vision_encoder": Part("MetaCLIP2VisionEncoder"),
        "text_encoder": Part("MetaCLIP2TextEncoder"),
        "projection_dim": 8,
    },
    "MetaCLIP2TextEncoder": TEXT_TOWER,
    "MetaCLIP2VisionEncoder": PATCHES,
    "MiTBackbone": SQUARE
    | {
        "layerwise_depths": [1, 1],
        "num_layers": 2,
        "layerwise_num_heads": [1, 2],
        "layerwise_sr_ratios": [2, 1],
        "max_drop_path_rate": 0.1,
        "layerwise_patch_sizes": [7, 3],
        "layerwise_strides": [4, 2],
        "hidden_dims": [4, 8],
    },
    "MistralBackbone": GROUPED | {"sliding_window": 4},
    "MixtralBackbone": GROUPED | EXPERTS | {"sliding_window": 4},
    "MobileNetBackbone": SQUARE
    | {
        "stackwise_expansion": [[4], [8, 8]],
        "stackwise_num_blocks": [1, 2],
        "stackwise_num_filters": [[4], [8, 8]],
        "stackwise_kernel_size": [[3], [5, 3]],
        "stackwise_num_strides": [[2], [2, 1]],
        "stackwise_se_ratio": [[None], [0.25, 0.25]],
        "stackwise_activation": [["relu"], ["hard_swish", "hard_swish"]],
        "stackwise_padding": [[1], [2, 1]],
        "output_num_filters": 8,
        "depthwise_filters": 4,
        "depthwise_stride": 2,
        "depthwise_residual": False,
        "squeeze_and_excite": 0.5,
        "last_layer_filter": 8,
        "input_num_filters": 4,
    },
    "MobileNetV5Backbone": SQUARE
    | {
        "stackwise_block_types": [["er"], ["uir", "mqa"]],
        "stackwise_num_blocks": [1, 2],
        "stackwise_num_filters": [[8], [8, 8]],
        "stackwise_strides": [[2], [2, 1]],
        "stackwise_act_layers": [["relu"], ["relu", "relu"]],
        "stackwise_exp_ratios": [[2.0], [2.0, 1.0]],
        "stackwise_se_ratios": [[0.0], [0.0, 0.0]],
        "stackwise_dw_kernel_sizes": [[0], [3, 3]],
        "stackwise_dw_start_kernel_sizes": [[0], [3, 0]],
        "stackwise_dw_end_kernel_sizes": [[0], [0, 0]],
        "stackwise_exp_kernel_sizes": [[3], [0, 0]],
        "stackwise_pw_kernel_sizes": [[1], [0, 0]],
        "stackwise_num_heads": [[0], [0, 2]],
        "stackwise_key_dims": [[0], [0, 4]],
        "stackwise_value_dims": [[0], [0, 4]],
        "stackwise_kv_strides": [[0], [0, 1]],
        "stackwise_use_cpe": [[False], [False, False]],
        "num_features": 8,
        "msfa_output_resolution": 4,
        "stem_size": 8,
    },
    "MoonshineBackbone": {
        "vocabulary_size": VOCABULARY,
        "filter_dim": 8,
        "encoder_num_layers": 1,
        "decoder_num_layers": 1,
        "hidden_dim": 8,
        "intermediate_dim": 16,
        "encoder_num_heads": 2,
        "decoder_num_heads": 2,
        "max_position_embeddings": 64,
        "partial_rotary_factor": 1.0,
    },
    "OPTBackbone": ENCODER,
    "PARSeqBackbone": {
        "image_encoder": Part("ViTBackbone", use_class_token=False, name="encoder"),
        "vocabulary_size": 97,
        "max_label_length": 25,
        "decoder_hidden_dim": 8,
        "num_decoder_layers": 1,
        "num_decoder_heads": 2,
        "decoder_mlp_dim": 16,
    },
    "PaliGemmaBackbone": GEMMA
    | {
        "image_size": 16,
        "vit_patch_size": 8,
        "vit_num_heads": 2,
        "vit_hidden_dim": 8,
        "vit_num_layers": 1,
        "vit_intermediate_dim": 16,
    },
    "Phi3Backbone": GROUPED | {"max_sequence_length": 64, "pretraining_sequence_length": 64},
    "Qwen3Backbone": GEMMA,
    "Qwen3MoeBackbone": GEMMA | EXPERTS | {"moe_intermediate_dim": 8},
    "Qwen3_5Backbone": GEMMA | HYBRID,
    "Qwen3_5MoeBackbone": {k: v for k, v in GEMMA.items() if k != "intermediate_dim"}
    | HYBRID
    | EXPERTS
    | {"moe_intermediate_dim": 8, "shared_expert_intermediate_size": 8},
    "QwenBackbone": GROUPED,
    "QwenMoeBackbone": GROUPED
    | EXPERTS
    | {"moe_intermediate_dim": 8, "shared_expert_intermediate_dim": 8},
    "RWKV7Backbone": {
        "hidden_size": 8,
        "head_size": 4,
        "num_layers": 2,
        "vocabulary_size": VOCABULARY,
        "intermediate_dim": 16,
        "gate_lora": 2,
        "mv_lora": 2,
        "aaa_lora": 2,
        "decay_lora": 2,
    },
    "ResNetBackbone": RESNET | SQUARE,
    "RetinaNetBackbone": SQUARE
    | {
        "image_encoder": Part("ResNetBackbone"),
        "min_level": 3,
        "max_level": 5,
        "use_p5": False,
    },
    "RobertaBackbone": ENCODER,
    "RoformerV2Backbone": TEXT | {"head_size": 4},
    "SAM3PromptableConceptBackbone": {
        "vision_encoder": Part(
            "SAM3VisionEncoder",
            **DETR,
            image_shape=(56, 56, 3),
            patch_size=14,
            fpn_hidden_dim=8,
            fpn_scale_factors=[4.0, 2.0, 1.0, 0.5],
            pretrain_image_shape=(28, 28, 3),
            window_size=2,
            global_attn_indexes=[0],
        ),
        "text_encoder": Part("SAM3TextEncoder", **TEXT, embedding_dim=8),
        "geometry_encoder": Part("SAM3GeometryEncoder", **DETR, roi_size=3),
        "detr_encoder": Part("SAM3DetrEncoder", **DETR),
        "detr_decoder": Part(
            "SAM3DetrDecoder", **DETR, image_shape=(56, 56, 3), patch_size=14, num_queries=4
        ),
        "mask_decoder": Part("SAM3MaskDecoder", num_upsampling_stages=3, hidden_dim=8, num_heads=2),
    },
    "SAMBackbone": {
        "image_encoder": Part("ViTDetBackbone"),
        "prompt_encoder": Part(
            "SAMPromptEncoder",
            hidden_size=8,
            image_embedding_size=(2, 2),
            input_image_size=(IMAGE, IMAGE),
            mask_in_channels=4,
        ),
        "mask_decoder": Part(
            "SAMMaskDecoder",
            hidden_size=8,
            num_layers=1,
            intermediate_dim=16,
            num_heads=2,
            embedding_dim=8,
            num_multimask_outputs=2,
            iou_head_depth=2,
            iou_head_hidden_dim=8,
        ),
    },
    "SegFormerBackbone": {
        "image_encoder": Part("MiTBackbone"),
        "projection_filters": 4,
    },
    "SigLIPBackbone": {
        "vision_encoder": Part("SigLIPVisionEncoder"),
        "text_encoder": Part("SigLIPTextEncoder"),
    },
    "SigLIPTextEncoder": TEXT_TOWER | {"max_sequence_length": SEQUENCE},
    "SigLIPVisionEncoder": PATCHES,
    "SmolLM3Backbone": SMOL,
    "StableDiffusion3Backbone": {
        "mmdit_patch_size": 2,
        "mmdit_hidden_dim": 8,
        "mmdit_num_layers": 2,
        "mmdit_num_heads": 2,
        "mmdit_position_size": 4,
        "mmdit_qk_norm": "rms_norm",
        "mmdit_dual_attention_indices": (0,),
        "vae": Part(
            "vae.vae_backbone:VAEBackbone",
            encoder_num_filters=[32, 32, 32, 32],
            encoder_num_blocks=[1, 1, 1, 1],
            decoder_num_filters=[32, 32, 32, 32],
            decoder_num_blocks=[1, 1, 1, 1],
            sampler_method="mode",  # "sample" gives other outputs at every call
        ),
        "clip_l": Part("CLIPTextEncoder", name="clip_l", intermediate_output_index=-2),
        "clip_g": Part("CLIPTextEncoder", name="clip_g", intermediate_output_index=-2),
        "image_shape": (2 * IMAGE, 2 * IMAGE, 3),
    },
    "SwinTransformerBackbone": SQUARE
    | {"embed_dim": 4, "depths": [1, 2], "num_heads": [1, 2], "window_size": 2},
    "T5Backbone": TEXT | {"num_layers": 1},  # each layer takes a second to build
    "T5Gemma2Backbone": TWO_STACKS,
    "T5GemmaBackbone": TWO_STACKS,
    "VGGBackbone": {"stackwise_num_repeats": [1, 2], "stackwise_num_filters": [4, 8], **SQUARE},
    "ViTBackbone": {
        **{key: value for key, value in PATCHES.items() if key != "intermediate_dim"},
        "mlp_dim": 16,
    },
    "ViTDetBackbone": SQUARE
    | {
        "hidden_size": 8,
        "num_layers": 2,
        "intermediate_dim": 16,
        "num_heads": 2,
        "global_attention_layer_indices": [1],
        "patch_size": 16,
        "num_output_channels": 8,
        "window_size": 2,
    },
    "VideoPrismBackbone": SQUARE
    | {
        "num_frames": 2,
        "patch_size": 16,
        "hidden_dim": 8,
        "intermediate_dim": 16,
        "num_heads": 2,
        "num_spatial_layers": 1,
        "num_temporal_layers": 1,
        "num_auxiliary_layers": 1,
        "vocabulary_size": VOCABULARY,
        "num_text_layers": 1,
    },
    "WhisperBackbone": TEXT
    | {"num_mels": 4, "max_encoder_sequence_length": 32, "max_decoder_sequence_length": 16},
    "XLMRobertaBackbone": ENCODER,
    "XLNetBackbone": TEXT,
    "XceptionBackbone": SQUARE
    | {"stackwise_conv_filters": [[4, 4], [8, 8]], "stackwise_pooling": [True, False]},
}


def build_backbone(name: str) -> keras.Model:
    """Returns a new tiny backbone of that class, with the same weights at every call."""
    keras.utils.set_random_seed(0)
    return Part(name).build()


BACKBONES: dict[str, Callable[[], keras.Model]] = {
    name: functools.partial(build_backbone, name) for name in BACKBONE_ARGUMENTS
}

VISION = {
    "gemma3": Part(
        "gemma3.gemma3_vision_encoder:Gemma3VisionEncoder",
        **STACK,
        image_size=16,
        patch_size=4,
        pool_size=2,
        output_dim=8,
    ),
}
FLAN_T5 = Part(
    "blip2.blip2_flan_t5_lm:BLIP2FlanT5",
    **TEXT | {"num_layers": 1},
    num_query_tokens=2,
    qformer_hidden_dim=8,
)
# The same classes with other parts inside, by a name of their own.
VARIANT_PARTS: dict[str, Part] = {
    "BLIP2Backbone of Flan-T5": Part("BLIP2Backbone", language_model=FLAN_T5),
    "CSPNetBackbone of cs3 stages": Part("CSPNetBackbone", stage_type="cs3"),
    "Gemma3Backbone of text": Part("Gemma3Backbone", vision_encoder=None),
    "Gemma3nBackbone with vision and audio": Part(
        "Gemma3nBackbone",
        vision_encoder_config=Config("MobileNetV5Backbone", use_msfa=False),
        vision_hidden_size=8,
        audio_encoder_config=Config(
            "gemma3n.gemma3n_audio_encoder:Gemma3nAudioEncoder",
            hidden_size=8,
            input_feat_size=32,
            sscp_conv_channel_size=[4, 8],
            sscp_conv_kernel_size=[(3, 3), (3, 3)],
            sscp_conv_stride_size=[(2, 2), (2, 2)],
            sscp_conv_group_norm_eps=1e-5,
            num_hidden_layers=1,
            rms_norm_eps=1e-6,
            gradient_clipping=1.0,
            residual_weight=0.5,
            num_attention_heads=2,
            attention_chunk_size=4,
            num_attention_context_right=2,
            num_attention_context_left=5,
            attention_logit_cap=50.0,
            conv_kernel_size=3,
            reduction_factor=1,
        ),
        audio_hidden_size=8,
    ),
    "Gemma4Backbone with vision and audio": Part(
        "Gemma4Backbone",
        vision_encoder=Part(
            "gemma4.gemma4_vision_encoder:Gemma4VisionEncoder",
            **STACK,
            image_size=16,
            patch_size=4,
            pool_size=2,
            head_dim=4,
            output_dim=8,
        ),
        audio_encoder=Part(
            "gemma4.gemma4_audio_encoder:Gemma4AudioEncoder",
            input_feat_size=16,
            hidden_size=8,
            num_heads=2,
            num_layers=1,
            chunk_size=4,
            context_left=5,
            sscp_conv_channels=(4, 4),
            output_proj_dims=8,
            output_dim=8,
        ),
        num_audio_tokens_per_clip=2,
    ),
    "HGNetV2Backbone of the last stage": Part("HGNetV2Backbone", out_features=["stage2"]),
    "LlamaBackbone of tied embeddings": Part("LlamaBackbone", tie_word_embeddings=True),
    "Qwen3_5Backbone with vision": Part(
        "Qwen3_5Backbone",
        vision_encoder=Part(
            "qwen3_5.qwen3_5_vision_encoder:Qwen3_5VisionEncoder",
            depth=1,
            hidden_size=8,
            num_heads=2,
            intermediate_size=16,
            patch_size=4,
            out_hidden_size=8,
            num_position_embeddings=16,
        ),
        mrope_section=[1, 0, 0],
    ),
    "ResNetBackbone of pre-activated bottlenecks": Part(
        "ResNetBackbone", block_type="bottleneck_block", use_pre_activation=True
    ),
    "StableDiffusion3Backbone with T5": Part(
        "StableDiffusion3Backbone",
        t5=Part(
            "stable_diffusion_3.t5_encoder:T5Encoder", **TEXT | {"num_layers": 1, "hidden_dim": 16}
        ),
    ),
    "T5Gemma2Backbone with vision": Part("T5Gemma2Backbone", vision_encoder=VISION["gemma3"]),
    "ViTBackbone without a class token": Part("ViTBackbone", use_class_token=False),
}


def build_variant(name: str) -> keras.Model:
    """Returns a new tiny backbone, with the same weights at every call."""
    keras.utils.set_random_seed(0)
    return VARIANT_PARTS[name].build()


VARIANTS: dict[str, Callable[[], keras.Model]] = {
    name: functools.partial(build_variant, name) for name in VARIANT_PARTS
}

# One tiny vocabulary a kind of tokenizer, with the special tokens of every family.
WORDS = ["a", "big", "cat", "sat"]
ANGLED = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "<bos>", "<eos>", "<cls>", "<image>"]
BRACKETED = ["[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]"]
PIPED_NAMES = listed("""endoftext im_start im_end vision_start vision_end image_pad video_pad
    startoftext begin_of_text end_of_text eot_id start_header_id end_header_id""")
MULTIMODAL = listed("""<img> <start_of_image> <end_of_image> <image_soft_token> <audio_soft_token>
    <start_of_audio> <end_of_audio> <start_of_turn> <end_of_turn> [multimodal] <|image> <|image|>
    <image|> <|audio> <|audio|> <audio|> <|video|> <|video> <video|>""")
PIPED = [f"<|{name}|>" for name in PIPED_NAMES]
WORD_PIECES = [*BRACKETED, *ANGLED, *WORDS]
BYTE_PAIRS = {
    token: index
    for index, token in enumerate(
        (*ANGLED, *PIPED, "<think>", "</think>", *"abcgist", *listed("Ġ Ċ Ġa at cat"))
    )
}
MERGES = ["Ġ a", "a t", "c at"]


@functools.cache
def sentence_pieces() -> bytes:
    """Returns a SentencePiece model trained on a few words, in memory."""
    proto = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a big cat sat", "the cat is big", "a hat"]),
        model_writer=proto,
        vocab_size=VOCABULARY - 32,
        model_type="unigram",
        hard_vocab_limit=False,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        user_defined_symbols=["<mask>", "<bos>", "<eos>", PIPED[0], *BRACKETED[:-1], *MULTIMODAL],
        minloglevel=2,
    )
    return proto.getvalue()


def build_tokenizer(tokenizer_class: Any) -> Any:
    """Returns a tokenizer of that class over the vocabulary of its kind."""
    if issubclass(tokenizer_class, keras_hub.tokenizers.WordPieceTokenizer):
        return tokenizer_class(vocabulary=WORD_PIECES)
    if issubclass(tokenizer_class, keras_hub.tokenizers.BytePairTokenizer):
        return tokenizer_class(vocabulary=BYTE_PAIRS, merges=MERGES)
    if issubclass(tokenizer_class, keras_hub.tokenizers.SentencePieceTokenizer):
        return tokenizer_class(proto=sentence_pieces())
    if tokenizer_class.__name__ == "RWKVTokenizer":
        return tokenizer_class([f"{i + 1} {word!r} {len(word)}" for i, word in enumerate(WORDS)])
    return tokenizer_class()


def build_preprocessor(preprocessor_class: Any, **changes: Any) -> Any:
    """Returns a preprocessor of that class with its tokenizer and converters."""
    accepted = inspect.signature(preprocessor_class.__init__).parameters
    arguments = {
        name: 4 * SEQUENCE
        for name in ("sequence_length", "encoder_sequence_length", "decoder_sequence_length")
        if name in accepted
    }
    if preprocessor_class.tokenizer_cls is not None and "tokenizer" not in changes:
        arguments["tokenizer"] = build_tokenizer(preprocessor_class.tokenizer_cls)
    if preprocessor_class.image_converter_cls is not None and "image_converter" not in changes:
        arguments["image_converter"] = preprocessor_class.image_converter_cls(
            image_size=(IMAGE, IMAGE)
        )
    return preprocessor_class(**{**arguments, **resolve(changes)})


class Tokenizer(Part):
    """A tokenizer that is an argument of a preprocessor, where its class doesn't say which."""

    def build(self) -> Any:
        return build_tokenizer(find_class(self.name))


class Preprocessor(Part):
    """A preprocessor that is an argument of a task or of another preprocessor."""

    def build(self) -> Any:
        return build_preprocessor(find_class(self.name), **self.changes)


def uniform(names: list[str], value: Any) -> dict[str, Any]:
    """Gives every name the same value."""
    return dict.fromkeys(names, value)


CLASSES = {"num_classes": 3}
CLIP = Preprocessor("CLIPPreprocessor")
# What a task needs beyond its backbone and its preprocessor, which are found by its class.
TASK_ARGUMENTS: dict[str, dict[str, Any]] = {
    **uniform(
        listed("""AlbertTextClassifier BertTextClassifier DebertaV3TextClassifier
        DistilBertTextClassifier ESMProteinClassifier FNetTextClassifier RobertaTextClassifier
        RoformerV2TextClassifier XLMRobertaTextClassifier
        CSPNetImageClassifier DeiTImageClassifier DenseNetImageClassifier
        EfficientNetImageClassifier HGNetV2ImageClassifier MiTImageClassifier
        ResNetImageClassifier SwinTransformerImageClassifier ViTImageClassifier
        XceptionImageClassifier DFineObjectDetector DeepLabV3ImageSegmenter
        SegFormerImageSegmenter RetinaNetObjectDetector"""),
        CLASSES,
    ),
    **uniform(
        listed("""AlbertMaskedLM BertMaskedLM DebertaV3MaskedLM DistilBertMaskedLM ESMMaskedPLM
        FNetMaskedLM RobertaMaskedLM RoformerV2MaskedLM XLMRobertaMaskedLM
        BertTextEmbedder Gemma3TextEmbedder Qwen3TextEmbedder XLMRobertaTextEmbedder
        BloomCausalLM FalconCausalLM GPT2CausalLM GPTNeoXCausalLM
        GemmaCausalLM GptOssCausalLM Llama3CausalLM LlamaCausalLM MistralCausalLM
        MixtralCausalLM OPTCausalLM PARSeqCausalLM PaliGemmaCausalLM Phi3CausalLM Qwen3CausalLM
        Qwen3MoeCausalLM Qwen3_5CausalLM Qwen3_5MoeCausalLM QwenCausalLM QwenMoeCausalLM
        RWKV7CausalLM SmolLM3CausalLM
        BartSeq2SeqLM EdRecSeq2SeqLM T5Gemma2Seq2SeqLM T5GemmaSeq2SeqLM T5Seq2SeqLM
        BASNetImageSegmenter SAMImageSegmenter
        SAM3PromptableConceptImageSegmenter"""),
        {},
    ),
    **uniform(
        ["StableDiffusion3ImageToImage", "StableDiffusion3Inpaint", "StableDiffusion3TextToImage"],
        {
            "preprocessor": Preprocessor(
                "StableDiffusion3TextToImagePreprocessor",
                clip_l_preprocessor=CLIP,
                clip_g_preprocessor=CLIP,
            )
        },
    ),
    "BLIP2CausalLM": {
        "preprocessor": Preprocessor(
            "BLIP2CausalLMPreprocessor",
            tokenizer=Tokenizer("blip2.blip2_opt_tokenizer:BLIP2OPTTokenizer"),
        )
    },
    "BLIP2Seq2SeqLM": {
        "backbone": Part(
            "BLIP2Backbone",
            language_model=FLAN_T5,
        )
    },
    "DepthAnythingDepthEstimator": {"depth_estimation_type": "relative"},
    "FluxTextToImage": {
        "preprocessor": Preprocessor(
            "FluxTextToImagePreprocessor",
            clip_l_preprocessor=CLIP,
            t5_preprocessor=Preprocessor("T5Preprocessor"),
        )
    },
    "Gemma3CausalLM": {
        "preprocessor": Preprocessor(
            "Gemma3CausalLMPreprocessor",
            max_images_per_prompt=1,
            num_vision_tokens_per_image=4,
        )
    },
    "Gemma3nCausalLM": {
        "preprocessor": Preprocessor(
            "Gemma3nCausalLMPreprocessor", image_converter=None, audio_converter=None
        )
    },
    "Gemma4AssistantCausalLM": {
        "backbone_hidden_size": 8,
        "num_centroids": 4,
        "centroid_intermediate_top_k": 2,
        "use_ordered_embeddings": True,
    },
    "Gemma4CausalLM": {
        "preprocessor": Preprocessor(
            "Gemma4CausalLMPreprocessor", image_converter=None, audio_converter=None
        )
    },
    "MobileNetImageClassifier": CLASSES | {"num_features": 8},
    "MobileNetV5ImageClassifier": CLASSES | {"head_hidden_size": 8},
    "MoonshineAudioToText": {
        "preprocessor": Preprocessor(
            "MoonshineAudioToTextPreprocessor", audio_converter=Part("MoonshineAudioConverter")
        )
    },
    "VGGImageClassifier": CLASSES | {"pooling_hidden_dim": 8},
}


def build_task(name: str) -> keras.Model:
    """Returns a new tiny task of that class, with the same weights at every call."""
    keras.utils.set_random_seed(0)
    task_class = find_class(name)
    arguments = resolve(TASK_ARGUMENTS[name])
    if "backbone" not in arguments:
        arguments["backbone"] = Part(task_class.backbone_cls.__name__).build()
    if "preprocessor" not in arguments and task_class.preprocessor_cls is not None:
        arguments["preprocessor"] = build_preprocessor(task_class.preprocessor_cls)
    return task_class(**arguments)


TASKS: dict[str, Callable[[], keras.Model]] = {
    name: functools.partial(build_task, name) for name in sorted(TASK_ARGUMENTS)
}

ABSTRACT = "abstract: a base class that builds no model by itself"
NOT_BUILDABLE: dict[str, str] = uniform(
    listed("""Backbone FeaturePyramidBackbone Task CausalLM DepthEstimator
    ImageClassifier ImageSegmenter ImageToImage Inpaint MaskedLM ObjectDetector Seq2SeqLM
    TextClassifier TextEmbedder TextToImage"""),
    ABSTRACT,
)

NOT_CALLABLE: dict[str, str] = {
    "Gemma4AssistantCausalLM": "drafts tokens for another model, and refuses a call of its own",
}
NOT_RELOADABLE: dict[str, str] = {
    "LlamaBackbone of tied embeddings": "its get_config leaves out tie_word_embeddings",
    "Gemma3nCausalLM": "its head holds the embedding's first values as a constant in the graph, "
    "so a model that is built again and then gets the weights has other logits",
    "RWKV7CausalLM": "RWKVTokenizer saves its vocabulary as an asset that it then can't load",
}

CALLS_CHANGE_WEIGHTS: dict[str, str] = uniform(
    [
        "SegFormerBackbone",
        "SegFormerImageSegmenter",
        "DeepLabV3Backbone",
        "DeepLabV3ImageSegmenter",
    ],
    "batch normalization in training mode at every call: the moving statistics change",
)
# Seconds rather than tenths of a second to build, however small: many layers, or traced ones.
SLOW = frozenset(
    listed("""BASNetBackbone BASNetImageSegmenter BLIP2Seq2SeqLM DFineBackbone DFineObjectDetector
    SAM3PromptableConceptBackbone SAM3PromptableConceptImageSegmenter StableDiffusion3Backbone
    StableDiffusion3ImageToImage StableDiffusion3Inpaint StableDiffusion3TextToImage
    SwinTransformerBackbone SwinTransformerImageClassifier T5Backbone T5Seq2SeqLM""")
)


def public_classes(base: str) -> set[str]:
    """Returns the names of the classes below that base, each once whatever its aliases."""
    found = (getattr(keras_hub.models, name) for name in dir(keras_hub.models))
    bound = getattr(keras_hub.models, base)
    return {each.__name__ for each in found if inspect.isclass(each) and issubclass(each, bound)}


# What an input is made of when its shape and dtype don't say it, by the input's name.
OPEN_LENGTHS = {
    "boxes": (1,),
    "box_labels": (1,),
    "masks": (1, 8, 8),
    "encoder_input_values": (2048,),
    "vision_indices": (4,),
    # Gemma 3n and 4: one image of 16 patches, one clip of 16 frames
    "pixel_values": (1, 16, 48),
    "pixel_position_ids": (1, 16),
    "audio_mel": (1, 16),
    "audio_mel_mask": (1, 16),
    "audio_indices": (2,),
    "input_features": (1, 16),
    "input_features_mask": (1, 16),
}
# Qwen 3.5 describes its images by grids: one of a frame of two by two patches, merged into a token
GRID = np.array([1, 2, 2])
GRID_LENGTHS = {"pixel_values": (4,), "image_grid_thw": (1,), "vision_indices": (1,)}
INTEGERS = {
    "num_steps": (1, 3),
    "pixel_position_ids": (0, 4),
    "mask_positions": (0, SEQUENCE),
    "points": (0, IMAGE),
}


def make_shape(tensor: Any, name: str, names: set[str], batch: int) -> tuple[int, ...]:
    """Returns a shape for one symbolic input, with something small for each open dimension."""
    sizes = tensor.shape[1:]
    if name == "encoder_padding_mask" and "encoder_input_values" in names:
        name = "encoder_input_values"  # raw audio: the mask is as long as the sound
    known = GRID_LENGTHS if "image_grid_thw" in names else OPEN_LENGTHS
    is_image = len(sizes) == 3 and sizes[-1] in (1, 3)
    is_video = len(sizes) == 4
    rest = itertools.repeat(IMAGE if is_image else 1 if is_video else SEQUENCE)
    lengths = itertools.chain(known.get(name, ()), rest)
    return (batch, *(next(lengths) if size is None else size for size in sizes))


def make_values(shape: tuple[int, ...], name: str, is_whole: bool, generator: Any) -> np.ndarray:
    """Returns random values that mean something to the input of that name."""
    if name.endswith("mask"):
        values = np.ones(shape)
        values[-1, shape[1] // 2 + 1 :] = 0
        return values
    if name.endswith("segment_ids"):
        return np.broadcast_to(np.arange(shape[1]) >= shape[1] // 2, shape)
    if name == "image_grid_thw":
        return np.broadcast_to(GRID, shape)
    if name.endswith(("vision_indices", "audio_indices")):
        return np.broadcast_to(np.arange(shape[1]), shape)
    if name.endswith("token_ids"):
        return generator.integers(1, VOCABULARY, shape)
    if is_whole:
        return generator.integers(*INTEGERS.get(name, (0, 2)), shape)
    return generator.uniform(0.0, 1.0, shape)


def inputs_for(model: keras.Model, *, batch: int = 2, seed: int = 0) -> Any:
    """Returns small random arrays in the structure of `model.input`, the same for every call.

    Args:
        model: A model built by this module, or its rewritten or reloaded twin.
        batch: How many examples.
        seed: Another seed gives other arrays.

    Returns:
        An array, or a dictionary of arrays.
    """
    generator = np.random.default_rng(seed)

    def make(tensor: Any, name: str, names: set[str]) -> np.ndarray:
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        shape = make_shape(tensor, name, names, batch)
        return make_values(shape, name, "int" in dtype, generator).astype(dtype)

    structure = model.input
    if isinstance(structure, (list, tuple)):
        names = {tensor.name for tensor in structure}
        return [make(tensor, tensor.name, names) for tensor in structure]
    if isinstance(structure, dict):
        names = set(structure)
        return {name: make(structure[name], name, names) for name in sorted(names)}
    return make(structure, structure.name, {structure.name})
