"""The options of the command line: what each takes, and what its help says."""

import argparse
from pathlib import Path

from brats_tf.config.checks import AUGMENTATIONS, CHOICES
from brats_tf.config.presets import PRESETS
from brats_tf.config.settings import EPOCHS
from brats_tf.evaluation.empty_rules import EMPTY_RULES
from brats_tf.regions import MODALITIES


def _sizes(text):
    try:
        first, second, third = (int(size) for size in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected three whole numbers, such as 192x160x108, received {text!r}"
        ) from None
    return first, second, third


def _count(text):
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, received {text!r}")
    return int(text)


def _volume(text):
    return text if text == "tuned" else float(text)


def _fold(text):
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected a fold and how many there are, such as 0/5, received {text!r}")
    return int(number), int(count)


def _validation(text):
    try:
        return float(text)
    except ValueError:
        return Path(text)


def _names(text):
    names = tuple(text.split(","))
    if not all(names) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"expected different names joined by commas, received {text!r}")
    return names


def _folder(default, text):
    return {"type": Path, "metavar": "DIR", "default": Path(default), "help": text}


POSITIONAL = ("first", "second")
OPTIONS = {
    "first": {"type": Path, "metavar": "FIRST", "help": "a folder that `brats-tf evaluate` wrote"},
    "second": {"type": Path, "metavar": "SECOND", "help": "another one"},
    "case": {"metavar": "ID", "help": "which case (default: the first that has what the network sees)"},
    "slices": {"type": _count, "metavar": "N", "default": 8, "help": "how many cases can be scrolled through"},
    "archive": {"type": Path, "metavar": "ZIP", "default": Path("submission.zip"), "help": "the zip to write"},
    "submit out": _folder("predictions", "the predictions to check"),
    "data": {"type": Path, "metavar": "PATH", "help": "folder with BraTS cases, or a .csv or .json list of cases"},
    "runs": _folder("runs", "folder of the trained networks"),
    "demo runs": _folder("demo/runs", "folder of its networks"),
    "demo out": _folder("demo/predictions", "folder of its predictions"),
    "demo results": _folder("demo/results", "folder of its pictures"),
    "run": {"type": Path, "metavar": "DIR", "help": "folder of one trained network, such as runs/flair"},
    "store": {"type": Path, "metavar": "DIR", "help": "folder for prepared cases (default: RUNS/store)"},
    "out": _folder("predictions", "folder of the predictions"),
    "export out": {"type": Path, "metavar": "DIR", "help": "folder to write the SavedModel to"},
    "results": _folder("results", "folder for scores and pictures"),
    "preset": {
        "choices": tuple(PRESETS),
        "default": "paper",
        "help": "paper A: paper (the text), authors (their code), plus (depth 144, augmentation); paper B: albunet3d, "
        "albunet2d (the text), -authors (their code), -subsets (an ensemble)",
    },
    "modality": {"choices": (*MODALITIES, "all"), "help": "what the network sees; all: four networks in turn"},
    "prepare modality": {"choices": (*MODALITIES, "all"), "default": "all", "help": "what to prepare"},
    "tune out": _folder("predictions", "the predictions to read"),
    "evaluate out": _folder("predictions", "the predictions to score"),
    "networks": {
        "type": _names,
        "metavar": "NAMES",
        "help": "the runs to average, folders in RUNS, joined by commas (default: those that PRESET trains)",
    },
    "epochs": {"type": int, "metavar": "N", "help": "epochs (default: 200; paper B: 50; phantoms: 4)"},
    "demo epochs": {"type": int, "metavar": "N", "help": "passes over the training cases (default: 4)"},
    "demo crop": {
        "type": _sizes,
        "metavar": "HxWxD",
        "help": "front-back x left-right x head-foot (default: 64x64x36)",
    },
    "crop": {"type": _sizes, "metavar": "HxWxD", "help": "front-back x left-right x head-foot (default: the preset's)"},
    "patch": {"type": _sizes, "metavar": "HxWxD", "help": "train on random patches, predict in windows of this size"},
    "step": {
        "type": _sizes,
        "metavar": "HxWxD",
        "help": "from window to window (paper B: 32x32x24)",
    },
    "window-weights": {"choices": ("uniform", "gaussian"), "help": "how overlapping windows count (default: uniform)"},
    "foreground": {"type": float, "metavar": "SHARE", "help": "share of patches centred on the tumour (default: 0)"},
    "batch-size": {"type": _count, "metavar": "N", "help": "crops or patches a step (paper A: 1; paper B: 24, 2D 64)"},
    "batches": {"type": _count, "metavar": "N", "help": "batches an epoch (paper B: 100; else what the cases make)"},
    "accumulation": {"type": _count, "metavar": "N", "help": "parts that a batch is cut into, to take less memory"},
    "backbone": {
        "metavar": "NAME",
        "help": "the embedded 2D classifier (default: efficientnetb0; `brats-tf backbones`)",
    },
    "backbones backbone": {"metavar": "NAME", "help": "only this one"},
    "planes": {"type": int, "metavar": "N", "help": "slices that the squeeze leaves for the classifier (default: 3)"},
    "depth-factors": {
        "type": _sizes,
        "metavar": "AxBxC",
        "help": "squeeze of the slices (default: by the depth; 3x3x4 for 108)",
    },
    "weights": {
        "metavar": "SOURCE",
        "help": "imagenet (the default), noisy-student, a file, or none: random",
    },
    "input-scaling": {
        "choices": ("none", "imagenet"),
        "help": "none: planes as they are; imagenet: as an image of 0..255",
    },
    "batch-norm": {"choices": ("frozen", "batch"), "help": "in training: fixed or the batch's own statistics"},
    "learning-rate": {"type": float, "metavar": "RATE", "help": "first learning rate (default: 1e-4; phantoms: 5e-4)"},
    "seed": {"type": int, "metavar": "N", "help": "same seed, same start and order (default: 0)"},
    "augmentation": {"choices": AUGMENTATIONS, "help": "what happens to training cases (default: the preset's)"},
    "spacing-mm": {"type": float, "metavar": "MM", "help": "resample to cubic voxels (default: as they are)"},
    "fold": {"type": _fold, "metavar": "N/K", "help": "keep fold N, from 0, of K from training, and validate on it"},
    "validation": {
        "type": _validation,
        "metavar": "SHARE|PATH",
        "help": "keep this share of the patients from training and validate on it, or validate on the cases there",
    },
    "validate-every": {"type": _count, "metavar": "N", "help": "epochs from one validation to the next (default: 5)"},
    "plateau-on": {"choices": CHOICES["plateau_on"], "help": "what must improve (default: loss, that of training)"},
    "schedule": {"choices": CHOICES["schedule"], "help": "of the learning rate (default: plateau; paper B: constant)"},
    "warm-up": {"type": int, "metavar": "N", "help": "epochs in which a cosine or constant rate rises (default: 0)"},
    "average": {
        "choices": CHOICES["average"],
        "help": "which weights are kept: the last, or an average (default: none)",
    },
    "precision": {"choices": CHOICES["precision"], "help": "what layers compute in while training (default: float32)"},
    "remat": {
        "action": "store_true",
        "default": None,
        "help": "compute block interiors again on the way back: less memory, same step",
    },
    "jit": {"action": "store_true", "default": None, "help": "compile the step with XLA (GPUs; slower on a CPU)"},
    "devices": {"type": _count, "metavar": "N", "default": 1, "help": "GPUs of this machine that share each batch"},
    "restart": {"action": "store_true", "help": "train anew instead of going on; what is there is moved aside"},
    "checkpoint-minutes": {"type": float, "metavar": "N", "default": 10.0, "help": "the longest time a kill may cost"},
    "epoch": {"choices": tuple(EPOCHS), "default": "last", "help": "whose weights predict; best: of the validation"},
    "held-out": {"action": "store_true", "help": "only the cases that the networks' training kept out"},
    "workers": {"type": _count, "metavar": "N", "help": "cases prepared at once (default: one per CPU core)"},
    "verify": {"action": "store_true", "help": "check the store instead of filling it, remove what is damaged"},
    "json": {"action": "store_true", "help": "print JSON instead of a table"},
    "empty": {
        "choices": tuple(EMPTY_RULES),
        "default": "brats",
        "help": "what a region without voxels scores: as on the BraTS platform, or nothing",
    },
    "evaluate workers": {"type": _count, "metavar": "N", "help": "cases scored at once (default: one per CPU core)"},
    "skip-bad": {"action": "store_true", "help": "leave bad cases out instead of stopping"},
    "only": {"choices": ("network", "windows", "data", "training"), "help": "what to measure (default: all)"},
    "measure": {"action": "store_true", "help": "measure on this machine instead of showing the packaged figures"},
    "remove-below-ml": {"type": float, "metavar": "ML", "default": 0.0, "help": "remove smaller parts of the tumour"},
    "fill-holes": {"action": "store_true", "help": "make background that the tumour encloses edema"},
    "drop-et-below-ml": {
        "type": _volume,
        "metavar": "ML",
        "default": 0.0,
        "help": "take less enhancing tumour than this for necrosis; tuned: what `brats-tf tune` found",
    },
    "save-uncertainty": {
        "action": "store_true",
        "help": "also write OUT/uncertainty/<case>.nii.gz: how far the networks disagree on WT, TC, ET",
    },
    "save-probabilities": {"action": "store_true", "help": "also write OUT/probabilities/<case>.nii.gz: WT, TC, ET"},
}
