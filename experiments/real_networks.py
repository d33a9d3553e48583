"""The networks of `real_cases.py`: variants of `embedding-plus`, those of both papers, and those of other systems."""

import importlib
import sys
from pathlib import Path

from recipes import Recipe

from brats_tf.config.config import Config
from brats_tf.errors import InputError, format_shape
from brats_tf.runtime.libraries import need_libraries
from brats_tf.runtime.system import machine

sys.path.append(str(Path(__file__).parents[1]))  # For `bench`, which is not installed.

TORCH = {"segresnet": "SegResNet", "nnunet": "PlainConvUNet"}  # Their names in `bench.torch_networks`.
# Presets of the papers, and settings that differ. AlbuNet3D sees whole volumes of four modalities here instead of
# patches of three, and learns with the loss of the others: its own is for large batches.
ALBUNET = {"loss": "ce_minus_dice"}
PAPERS = {
    "embedding": ("embedding", {}),
    "albunet3d": ("albunet3d", ALBUNET),
    "albunet3d-random": ("albunet3d", ALBUNET | {"weights": "none"}),
}
RANDOM = {"weights": "none", "classifier_rate": 1.0}
# Settings of the preset, and what of the recipe differs (of `loss`, the settings of `plus_parts.RegionLoss`). Where
# `plus_parts.PARTS` has the variant, parts of the network differ.
PLUS = {
    "plus": ({}, {}),
    "full-rate": ({"classifier_rate": 1.0}, {}),
    "random": ({"weights": "none"}, {}),
    "random-full-rate": (RANDOM, {}),
    "slab2": ({"slab": 2}, {}),
    "slab3": ({"slab": 3}, {}),
    "slab6": ({"slab": 6}, {}),
    "fixed-classifier": ({"classifier_rate": 0.0}, {}),
    "batch-statistics": ({"batch_norm": "batch"}, {}),
    "unscaled": ({"input_scaling": "none"}, {}),
    "modality-dropout": ({}, {"modality_dropout": 0.4}),
    "unaugmented": ({}, {"mirror": (), "brightness": False}),
    "full-rate-augmented": (
        {"classifier_rate": 1.0, "augmentation": "nnunet-like"},
        {"mirror": (), "brightness": False},
    ),
    "nnunet-augmentation": ({"augmentation": "nnunet-like"}, {"mirror": (), "brightness": False}),
    "averaged-weights": ({}, {"ema": 0.98}),
    "constant-rate": ({}, {"final_rate": 1.0}),
    "dice-loss": ({}, {"loss": {"entropy": 0.0}}),
    "cross-entropy": ({}, {"loss": {"dice": 0.0}}),
    "background-dice": ({}, {"loss": {"background": True}}),
    "weighted-regions": ({}, {"loss": {"weights": (1, 2, 3)}}),
    "mean-images": ({}, {}),
    "block-images": ({}, {}),
    "coarse-scales": ({}, {}),
    "no-detail": ({}, {}),
    "full-size": ({}, {}),
    "deep-supervision": ({}, {"loss": {"heads": (1.0, 0.5, 0.25)}}),
    **{
        f"random-{backbone}": (RANDOM | {"backbone": backbone}, {})
        for backbone in ("efficientnetb2", "efficientnetv2b0", "convnext_tiny")
    },
}


def make_training(variant, modalities, seed, settings, cropped, begun=None):
    """A network of a variant, ready to train: (training, facts about it).

    Args:
        variant: a key of `PLUS`, `PAPERS` or `TORCH`.
        modalities: what it sees.
        seed: of weights and augmentation.
        settings: of its `Recipe`.
        cropped: crop and spacing of its volumes.
        begun: a dictionary that keeps between calls what JAX has compiled, or None.
    """
    if variant in TORCH:
        check_variants([variant], cropped["crop"])
        return _torch_training(variant, seed, settings)
    return _own_training(variant, modalities, seed, settings, cropped, {} if begun is None else begun)


def check_variants(variants, crop):
    """Raises `InputError` where a network of another system lacks its library, or cannot take volumes of a crop.

    Imports these libraries: after TensorFlow 2.21, torchvision 0.29 ends the process with a segmentation fault.
    """
    from bench.torch_networks import LIBRARIES, MULTIPLES

    for variant in set(variants) & set(TORCH):
        multiple = MULTIPLES[TORCH[variant]]
        if any(size % multiple for size in crop):
            raise InputError(f"--crop must be multiples of {multiple} for {variant}. Received: {format_shape(crop)}.")
        need_libraries("bench", *LIBRARIES)
        for library in LIBRARIES:
            importlib.import_module(library)


def _torch_training(variant, seed, settings):
    import torch
    import torch_training

    training = torch_training.TorchTraining(TORCH[variant], Recipe(None, "regions", **settings), seed)
    about = {"device": torch.cuda.get_device_name() if torch.cuda.is_available() else machine()}
    about["versions"] = {"torch": torch.__version__}
    about["parameters"] = sum(one.numel() for one in training.network.parameters())
    return training, about | {"precision": training.precision, "outputs": "regions"}


def _own_training(variant, modalities, seed, settings, cropped, begun):
    import keras
    from plus_parts import RegionLoss

    from brats_tf.models.build import build_with_weights, classifier_hash
    from brats_tf.models.losses import make_loss
    from brats_tf.models.registry import get_network

    config, differences = config_of(variant, modalities, cropped | {"precision": _precision(), "seed": seed})
    if keras.backend.backend() == "jax" and config.data.augmentation != "none":
        raise InputError(f"The augmentation {config.data.augmentation} needs KERAS_BACKEND=tensorflow here.")
    outputs = get_network(config.network.name).outputs
    loss = RegionLoss(**differences.pop("loss")) if "loss" in differences else make_loss(config.training, outputs)
    recipe = Recipe(loss, outputs, **settings | differences)
    keras.utils.set_random_seed(seed)
    network, origin = build_with_weights(config)
    about = {"weights": origin, "classifier_sha256": classifier_hash(network), "parameters": network.count_params()}
    about |= {"precision": config.compute.precision, "outputs": outputs}
    if keras.backend.backend() == "jax":
        import jax_training

        about["device"] = jax_training.jax.devices()[0].device_kind
        about["versions"] = {"jax": jax_training.jax.__version__, "keras": keras.__version__}
        if variant in begun and begun[variant].recipe.steps == settings["steps"]:
            begun[variant].restart(network.get_weights(), seed)
        else:
            begun[variant] = jax_training.Training(network, recipe, seed)
        return begun[variant], about
    import tf_training

    about |= {"device": machine(), "versions": {"tensorflow": tf_training.tf.__version__, "keras": keras.__version__}}
    return tf_training.TfTraining(network, config, recipe, seed), about


def config_of(variant, modalities, settings):
    """A variant's `Config`, whose network sees whole volumes, and what of its `Recipe` differs."""
    preset, changes, differences = (*PAPERS[variant], {}) if variant in PAPERS else ("embedding-plus", *PLUS[variant])
    if preset == "albunet3d":
        changes = changes | {"patch_size": settings["crop"]}
    config = Config.from_preset(preset, modalities=modalities, **{"augmentation": "none"} | settings | changes)
    rate = getattr(config.network, "classifier_rate", 1.0)
    return config, differences | {"classifier_rate": rate}


def _precision():
    """What the layers compute in: bfloat16, but not where it is emulated, which takes many times as long."""
    import keras

    from brats_tf.models.precision import on_gpu

    if keras.backend.backend() == "jax":
        return "bfloat16" if on_gpu() else "float32"
    from brats_tf.runtime.tensorflow import resolved_precision

    return resolved_precision("auto")
