"""Every recipe beside a predicate that is written from its source: the same variables, no others.

The predicates know Keras's layers and the words of the sources, and nothing of graphwd.
"""

import functools
import gc
import re

import keras
import pytest
from keras import layers

import graphwd
from graphwd.policy.policies import recipes
from tests.support import oracle

pytestmark = pytest.mark.filterwarnings("ignore::graphwd.DecoupledStrengthWarning")

DENSE = (layers.Dense, layers.EinsumDense)
PLAIN = (layers.Conv2D, layers.Conv2DTranspose)  # SeparableConv2D and DepthwiseConv2D are none
NORMALIZATION = (
    layers.BatchNormalization,
    layers.LayerNormalization,
    layers.GroupNormalization,
    layers.RMSNormalization,
)


def weights(model):
    """Pairs of a layer and a variable of floating-point numbers that it owns, each once."""
    seen, found = set(), []
    for layer in oracle.all_layers(model):
        for variable in oracle.owned(layer):
            floating = "float" in str(variable.dtype) and not variable.overwrite_with_gradient
            if floating and id(variable) not in seen:
                seen.add(id(variable))
                found.append((layer, variable))
    return found


def ndim(variable):
    return len(variable.shape)


def by_rank(layer, variable):
    """What the field does: "no decay on vectors and biases"."""
    return ndim(variable) >= 2 and "bias" not in variable.name


# --- the predicates, each from its source -----------------------------------------------------


def slim_weights(layer, variable):
    """weights_regularizer of TF-Slim's conv2d and fully_connected, and no biases_regularizer."""
    return isinstance(layer, (*DENSE, *PLAIN)) and variable.name == "kernel"


def slim_weights_and_biases(layer, variable):
    """The scope of inception_resnet_v2.py: weights_regularizer and biases_regularizer."""
    return isinstance(layer, (*DENSE, *PLAIN)) and variable.name in ("kernel", "bias")


def slim_separable(layer, variable):
    """separable_conv2d gives weights_regularizer to its depthwise and its pointwise filters."""
    separable = isinstance(layer, layers.SeparableConv2D) and variable.name != "bias"
    return separable or slim_weights(layer, variable)


def slim_pointwise(layer, variable):
    """The same with regularize_depthwise=False."""
    separable = isinstance(layer, layers.SeparableConv2D) and "pointwise" in variable.name
    return separable or slim_weights(layer, variable)


def convolutions(layer, variable):
    """fb.resnet.torch on the paper: "just the weights of the convolution layers"."""
    return isinstance(layer, layers.Conv2D) and variable.name == "kernel"


def everything(layer, variable):
    """All parameters handed to the optimizer with one weight decay."""
    return True


def no_batch_normalization(layer, variable):
    """`if 'batch_normalization' not in v.name`."""
    return not isinstance(layer, layers.BatchNormalization)


def not_by_regex(layer, variable):
    """`weight_decay_exclude='.*(bias|gamma|beta).*'`."""
    return re.match(".*(bias|gamma|beta).*", variable.name) is None


def convnext(layer, variable):
    """`len(param.shape) == 1 or name.endswith(".bias")`: no decay."""
    return not (ndim(variable) == 1 or variable.name == "bias")


def vit(layer, variable):
    """timm: no decay on one dimension, on .bias, on pos_embed, cls_token, reg_token, dist_token."""
    position = "position_embedding" in (layer.name, variable.name)
    token = variable.name in ("class_token", "distillation_token", "register_tokens")
    return by_rank(layer, variable) and not position and not token


def swin(layer, variable):
    """Dimensions and biases, and the keyword 'relative_position_bias_table'."""
    return convnext(layer, variable) and variable.name != "relative_position_bias_table"


def segformer(layer, variable):
    """decay_mult=0 for what has norm in its name: LayerNorm; the decoder's is called bn."""
    return not isinstance(layer, layers.LayerNormalization)


def bert(layer, variable):
    """exclude_from_weight_decay=["LayerNorm", "layer_norm", "bias"], by names."""
    normalization = isinstance(layer, NORMALIZATION) or "Norm" in type(layer).__name__
    t5_bias = type(layer).__name__ == "T5MultiHeadAttention"  # its relative_attention_bias
    return not normalization and "bias" not in variable.name and not t5_bias


TABLES = {
    *("embeddings", "reverse_embeddings", "rel_embedding", "position_embedding", "pos_embed"),
    *("interpolated_position_embeddings", "tiled_position_embeddings", "pos_query_embeddings"),
    *("cls_token", "class_token", "mask_token", "distillation_token", "register_tokens"),
    *("query_tokens",),
}


def bag_of_tricks(layer, variable):
    """ "the weights in convolution and fully-connected layers": no tables that are looked up in."""
    return by_rank(layer, variable) and variable.name not in TABLES


def uniform(layer, variable):
    """Kernels of every kind, and biases."""
    return variable.name.endswith(("kernel", "bias"))


PREDICATES = {
    "uniform": (uniform, 2e-5),
    "no-bias": (bag_of_tricks, 1e-4 / 2),
    "resnet": (convolutions, 1e-4 / 2),
    "vgg": (slim_weights, 5e-4 / 2),
    "wide-resnet": (everything, 5e-4 / 2),
    "densenet": (everything, 1e-4 / 2),
    "inception": (slim_weights, 4e-5 / 2),
    "inception-resnet": (slim_weights_and_biases, 4e-5 / 2),
    "xception": (slim_pointwise, 1e-5 / 2),
    "nasnet": (slim_separable, 5e-5 / 2),
    "nasnet-mobile": (slim_separable, 4e-5 / 2),
    "mobilenet": (slim_weights, 4e-5 / 2),
    "mobilenetv2": (slim_weights, 4e-5 / 2),
    "mobilenetv3": (slim_weights, 1e-5 / 2),
    "efficientnet": (no_batch_normalization, 1e-5 / 2),
    "efficientnetv2": (not_by_regex, 1e-5 / 2),
    "convnext": (convnext, 0.05 / 2),
    "vit": (vit, 0.05 / 2),
    "deit": (vit, 0.05 / 2),
    "swin": (swin, 0.05 / 2),
    "segformer": (segformer, 0.01 / 2),
    "detr": (everything, 1e-4 / 2),
    "bert": (bert, 0.01 / 2),
    "decoder": (by_rank, 0.1 / 2),
}


def selected(found, predicate):
    """The variables for which a predicate holds; several may have one path."""
    return {
        f"{place}: {variable.path}"
        for place, (layer, variable) in enumerate(found)
        if predicate(layer, variable)
    }


def decayed(model, policy):
    """The variables that a policy gives L2, and the factors; the model is left without any."""
    graphwd.rewrite(model, policy, in_place=True, verify=False)
    found = weights(model)
    chosen = selected(found, lambda layer, variable: variable.regularizer is not None)
    factors = {float(v.regularizer.l2) for _, v in found if v.regularizer is not None}
    graphwd.rewrite(model, graphwd.Rule(None), in_place=True, verify=False)
    return chosen, factors


def assert_recipe(name, model):
    predicate, factor = PREDICATES[name]
    found = weights(model)
    expected = selected(found, predicate)
    paths, factors = decayed(model, name)
    assert paths - expected == set(), f"{name}: too many"
    assert expected - paths == set(), f"{name}: missing"
    assert sorted(factors) == pytest.approx([factor] if expected else [])


# --- the families -----------------------------------------------------------------------------

APPLICATIONS = {
    "resnet": ["ResNet50", "ResNet50V2", "ResNet101", "ResNet101V2", "ResNet152", "ResNet152V2"],
    "vgg": ["VGG16", "VGG19"],
    "wide-resnet": ["ResNet50V2"],
    "densenet": ["DenseNet121", "DenseNet169", "DenseNet201"],
    "inception": ["InceptionV3"],
    "inception-resnet": ["InceptionResNetV2"],
    "xception": ["Xception"],
    "nasnet": ["NASNetLarge"],
    "nasnet-mobile": ["NASNetMobile"],
    "mobilenet": ["MobileNet"],
    "mobilenetv2": ["MobileNetV2"],
    "mobilenetv3": ["MobileNetV3Small", "MobileNetV3Large"],
    "efficientnet": [f"EfficientNetB{n}" for n in range(8)],
    "efficientnetv2": [f"EfficientNetV2{n}" for n in ("B0", "B1", "B2", "B3", "S", "M", "L")],
    "convnext": [f"ConvNeXt{n}" for n in ("Tiny", "Small", "Base", "Large", "XLarge")],
}
RECIPES_OF = {
    model: [name for name, models in APPLICATIONS.items() if model in models]
    for models in APPLICATIONS.values()
    for model in models
}
QUICK = {models[0] for models in APPLICATIONS.values()} | {"MobileNetV3Large"} - {"NASNetLarge"}
QUICK -= {"NASNetLarge"}


@pytest.fixture(autouse=True)
def fresh():
    yield
    keras.backend.clear_session()
    gc.collect()


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(model, marks=() if model in QUICK else pytest.mark.slow)
        for model in sorted(RECIPES_OF)
    ],
)
def test_applications(model):
    built = getattr(keras.applications, model)(weights=None)
    assert built.count_params() > 0
    for name in RECIPES_OF[model]:
        assert_recipe(name, built)
    if model in QUICK:
        paths = selected(weights(built), by_rank)
        for policy in (keras.regularizers.L2(1e-4), "no-bias", "bert"):
            assert decayed(built, policy)[0] == paths
        assert_recipe("uniform", built)


def test_every_application_is_of_a_family():
    applications = {
        name
        for name in dir(keras.applications)
        if name[0].isupper() and callable(getattr(keras.applications, name))
    }
    assert applications == set(RECIPES_OF)


def test_resnet50_has_as_many_as_its_source_says():
    model = keras.applications.ResNet50(weights=None)
    found = {name: len(decayed(model, name)[0]) for name in ("resnet", "densenet", "no-bias")}
    assert found == {"resnet": 53, "densenet": 214, "no-bias": 54}


def test_every_recipe_has_its_predicate():
    assert set(PREDICATES) == {recipe.name for recipe in recipes()}
    used = {*APPLICATIONS, *BACKBONES, "uniform", "no-bias"}
    assert used == set(PREDICATES)


# --- keras-hub --------------------------------------------------------------------------------

BACKBONES = {
    "resnet": ["ResNetBackbone"],
    "vgg": ["VGGBackbone"],
    "wide-resnet": ["ResNetBackbone"],
    "densenet": ["DenseNetBackbone"],
    "xception": ["XceptionBackbone"],
    "mobilenetv3": ["MobileNetBackbone"],
    "efficientnet": ["EfficientNetBackbone"],
    "vit": ["ViTBackbone"],
    "deit": ["DeiTBackbone"],
    "swin": ["SwinTransformerBackbone"],
    "segformer": ["MiTBackbone", "SegFormerBackbone"],
    "detr": ["DFineBackbone"],
    "bert": [
        *("BertBackbone", "AlbertBackbone", "RobertaBackbone", "XLMRobertaBackbone"),
        *("DistilBertBackbone", "ElectraBackbone", "DebertaV3Backbone", "T5Backbone"),
    ],
    "decoder": [
        *("GPT2Backbone", "GPTNeoXBackbone", "OPTBackbone", "BloomBackbone", "FalconBackbone"),
        *("LlamaBackbone", "Llama3Backbone", "MistralBackbone", "MixtralBackbone", "Phi3Backbone"),
        *("GemmaBackbone", "Gemma3Backbone", "Gemma3nBackbone", "Gemma4Backbone"),
        *("QwenBackbone", "QwenMoeBackbone", "Qwen3Backbone", "Qwen3MoeBackbone"),
        *("Qwen3_5Backbone", "Qwen3_5MoeBackbone", "GptOssBackbone", "SmolLM3Backbone"),
    ],
}

# Where a recipe's source asks for something else than "two dimensions and more, and no bias".
# `no-bias` leaves out tables and tokens of every backbone; these are the models that have none.
WITHOUT_TABLES = {
    *("BASNetBackbone", "CSPNetBackbone", "DFineBackbone", "DeepLabV3Backbone", "DenseNetBackbone"),
    *("EfficientNetBackbone", "FluxBackbone", "HGNetV2Backbone", "MiTBackbone"),
    *("MobileNetBackbone", "MobileNetV5Backbone", "ResNetBackbone", "RetinaNetBackbone"),
    *("SegFormerBackbone", "SwinTransformerBackbone", "VGGBackbone", "XceptionBackbone"),
}
T5_BIASES = {"T5Backbone": 2}


@functools.cache
def hub():
    return pytest.importorskip("tests.support.hub_models", reason="keras-hub is not installed")


def backbone_names():
    try:
        from tests.support import hub_models
    except ImportError:
        return ["keras-hub"]
    return sorted(hub_models.BACKBONES)


@pytest.mark.parametrize("name", backbone_names())
def test_backbone(name):
    model = hub().BACKBONES[name]()
    for recipe in (recipe for recipe, names in BACKBONES.items() if name in names):
        assert_recipe(recipe, model)
    assert_recipe("no-bias", model)
    found = weights(model)
    paths = selected(found, by_rank)
    assert decayed(model, keras.regularizers.L2(1e-4))[0] == paths
    differ = paths ^ decayed(model, "bert")[0]
    assert len(differ) == T5_BIASES.get(name, 0)
    differ = paths - decayed(model, "no-bias")[0]
    assert differ == selected(found, lambda layer, v: by_rank(layer, v) and v.name in TABLES)
    assert bool(differ) is (name not in WITHOUT_TABLES)
