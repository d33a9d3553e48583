"""The presets of both papers, as the fields of `config.Config` that differ from its defaults."""

from brats_tf.regions import MODALITIES

CROP = (192, 160, 108)  # H front-back, W left-right, D head-foot, in voxels (paper A, Section 2.1).
WHOLE = (240, 240, 155)  # A BraTS volume: paper B's patches come from anywhere in it.
PHANTOM_SETTINGS = {"crop": (64, 64, 36), "epochs": 4, "learning_rate": 5e-4}  # Without data: minutes on a CPU.
# The same for networks that see patches; depth 1 stays 1.
PHANTOM_PATCHES = {"crop": (80, 80, 52), "epochs": 4, "batches": 10, "batch_size": 2}
PHANTOM_PATCH, PHANTOM_STEP = (64, 64, 12), (16, 16, 12)
VALIDATE_EVERY = 5  # Epochs, where cases are held out and nothing is said.
PRESETS = {
    "paper": {},
    "authors": {
        "network": "embedding_authors",
        "modalities": MODALITIES,
        "crop": (*CROP[:2], 144),
        "input_scaling": "imagenet",
        "batch_norm": "batch",
        "stochastic_depth": True,
        "optimizer": "nadam",
    },
    "plus": {"crop": (*CROP[:2], 144), "augmentation": "plus"},
}
# Paper B: R = FLAIR, G = T1c, B = T2 (Section 2.1); patches, batches and optimiser of Section 2.3; steps of 2.5.
_ALBUNET3D = {
    "network": "albunet",
    "modalities": ("flair", "t1ce", "t2"),
    "crop": WHOLE,
    "patch": (128, 128, 24),
    "step": (32, 32, 24),
    "augmentation": "paper_b",
    "loss": "multiple_dice",
    "learning_rate": 1e-3,
    "schedule": "constant",
    "batch_size": 24,
    "batches": 100,
    "epochs": 50,
}
_ALBUNET2D = {"patch": (128, 128, 1), "step": (32, 32, 1), "depth_layers": False, "batch_size": 64}
_AUTHORS_B = {
    "modalities": ("t1ce", "t2", "flair"),
    "augmentation": "authors_b",
    "loss": "multiple_dice_background",
    "window_average": "logits",
    "depth_layers": True,
}
PRESETS |= {
    "albunet3d": _ALBUNET3D,
    "albunet2d": _ALBUNET3D | _ALBUNET2D,
    "albunet3d-authors": _ALBUNET3D | _AUTHORS_B,
    "albunet2d-authors": _ALBUNET3D | _ALBUNET2D | _AUTHORS_B,
    "albunet3d-subsets": _ALBUNET3D,
}
# The networks that make up a preset, by their modalities. Paper B, Section 4, proposes the three-channel subsets.
SUBSETS = (("flair", "t1ce", "t2"), ("flair", "t1ce", "t1"), ("flair", "t1", "t2"), ("t1", "t1ce", "t2"))
NETWORKS_OF = {"albunet3d-subsets": SUBSETS}
