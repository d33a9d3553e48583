"""The presets of both papers, as the settings that differ from the defaults."""

from brats_tf.config.settings import CROP
from brats_tf.regions import MODALITIES

DEFAULT_PRESET = "embedding"
WHOLE_VOLUME = (240, 240, 155)  # A BraTS volume: the AlbuNet paper's patches come from all of its brain.
VALIDATION_FREQUENCY = 5  # Epochs, where cases validate and no frequency is set.

_EMBEDDING_AUTHORS = {
    "network": "embedding_authors",
    "modalities": MODALITIES,
    "crop": (*CROP[:2], 144),
    "input_scaling": "imagenet",
    "batch_norm": "batch",
    "stochastic_depth": True,
    "optimizer": "nadam",
}
_EMBEDDING_PLUS = {
    "network": "embedding_plus",
    "modalities": MODALITIES,
    "crop": (*CROP[:2], 144),
    "augmentation": "nnunet-like",
    "learning_rate": 1e-3,
    "classifier_rate": 0.1,
    "schedule": "cosine",
    "epochs": 100,
    "warmup_epochs": 2,
}
# R = FLAIR, G = T1c, B = T2 (AlbuNet paper, Section 2.1); patches, batches, optimiser: Section 2.3; stride: 2.5.
_ALBUNET3D = {
    "network": "albunet",
    "modalities": ("flair", "t1ce", "t2"),
    "crop": WHOLE_VOLUME,
    "patch_size": (128, 128, 24),
    "window_stride": (32, 32, 24),
    "augmentation": "albunet",
    "loss": "multiple_dice",
    "learning_rate": 1e-3,
    "schedule": "constant",
    "batch_size": 24,
    "steps_per_epoch": 100,
    "epochs": 50,
}
_ALBUNET2D = {
    "patch_size": (128, 128, 1),
    "window_stride": (32, 32, 1),
    "depth_layers": False,
    "batch_size": 64,
}
_ALBUNET_AUTHORS = {
    "modalities": ("t1ce", "t2", "flair"),
    "augmentation": "albunet-authors",
    "loss": "multiple_dice_background",
    "window_average": "logits",
    "depth_layers": True,
}
PRESETS: dict[str, dict] = {
    DEFAULT_PRESET: {},
    "embedding-authors": _EMBEDDING_AUTHORS,
    "embedding-plus": _EMBEDDING_PLUS,
    "albunet3d": _ALBUNET3D,
    "albunet2d": _ALBUNET3D | _ALBUNET2D,
    "albunet3d-authors": _ALBUNET3D | _ALBUNET_AUTHORS,
    "albunet2d-authors": _ALBUNET3D | _ALBUNET2D | _ALBUNET_AUTHORS,
    "albunet3d-subsets": _ALBUNET3D,
}
SUMMARIES = {
    DEFAULT_PRESET: "the text of the embedding paper: four one-modality networks",
    "embedding-authors": "its authors' code: one network of four modalities, depth 144",
    "embedding-plus": "one network of four modalities whose classifier sees an image for each slab of slices",
    "albunet3d": "the text of the AlbuNet paper: three modalities, random patches",
    "albunet2d": "the same on single slices",
    "albunet3d-authors": "its authors' code: background in the loss, averaged logits",
    "albunet2d-authors": "the same on single slices",
    "albunet3d-subsets": "four AlbuNets, one for each three modalities (the paper's Section 4)",
}
# The networks that make up a preset, by their modalities (AlbuNet paper, Section 4).
SUBSETS = (("flair", "t1ce", "t2"), ("flair", "t1ce", "t1"), ("flair", "t1", "t2"), ("t1", "t1ce", "t2"))
NETWORKS_OF = {"albunet3d-subsets": SUBSETS}

# Synthetic cases: minutes on a CPU, at a third of the paper's resolution.
_PHANTOM_EMBEDDING = {"crop": (64, 64, 36), "epochs": 3, "learning_rate": 3e-4}
_PHANTOM_ALBUNET = {"crop": (80, 80, 52), "epochs": 4, "steps_per_epoch": 10, "batch_size": 2}
_PHANTOM_PATCH, _PHANTOM_STRIDE = (64, 64, 12), (16, 16, 12)


def phantom_settings(preset: str) -> dict:
    """What replaces a preset's settings where it runs on synthetic cases."""
    values = PRESETS[preset]
    if "patch_size" not in values:
        return dict(_PHANTOM_EMBEDDING)
    depth = min(_PHANTOM_PATCH[2], values["patch_size"][2])  # A single slice stays one.
    sizes = {"patch_size": (*_PHANTOM_PATCH[:2], depth), "window_stride": (*_PHANTOM_STRIDE[:2], depth)}
    return _PHANTOM_ALBUNET | sizes


def modalities_of(preset: str) -> tuple[tuple[str, ...], ...]:
    """The modalities of each network that a preset trains."""
    stacked = PRESETS[preset].get("modalities")
    return NETWORKS_OF.get(preset) or ((stacked,) if stacked else tuple((name,) for name in MODALITIES))
