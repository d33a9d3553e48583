"""Steps on a predicted label map after the networks: none in the papers, each requested by name and recorded."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from brats_tf.errors import InputError
from brats_tf.regions import CLASSES, ENHANCING, NECROSIS
from brats_tf.runs.files import CHECKPOINT_FILES, POSTPROCESSING_FILE
from brats_tf.runtime.files import read_json, sha256_of

TUNED = "drop_et_below_ml"  # The field that `evaluation.tune` finds.
_CONNECTED = np.ones((3, 3, 3), bool)  # 26 neighbours, as in the lesion-wise scores.


def postprocess(classes, spacing_mm, settings):
    """Applies `PostProcessing` to classes (X, Y, Z), uint8, with voxel edges in mm; shape and type stay."""
    classes = classes.copy()
    voxel_ml = volume_ml(1, spacing_mm)
    if settings.remove_below_ml:
        parts, _ = ndimage.label(classes > 0, structure=_CONNECTED)
        small = np.bincount(parts.ravel()) * voxel_ml < settings.remove_below_ml
        classes[small[parts]] = 0
    if settings.fill_holes:
        inside = ndimage.binary_fill_holes(classes > 0) & (classes == 0)
        classes[inside] = CLASSES.index("edema")
    if settings.drop_et_below_ml:
        enhancing = classes == ENHANCING
        if volume_ml(enhancing, spacing_mm) < settings.drop_et_below_ml:
            classes[enhancing] = NECROSIS
    return classes


def volume_ml(mask, spacing_mm):
    """The volume of a mask, bool, in ml, with voxel edges in mm."""
    return np.count_nonzero(mask) * (float(np.prod(spacing_mm)) / 1000)


def with_tuned(settings, runs, checkpoint="last", *, mirror="none"):
    """`PostProcessing` with the volume that `brats-tf tune-postprocessing` found for an ensemble.

    Raises:
        InputError: when `settings` have a volume already, a run has none, or one that was tuned for other networks or
            weights, after other steps or with another `mirror` (`ForwardOptions`).
    """
    if getattr(settings, TUNED):
        raise InputError("--tuned takes the volume that was tuned, and --drop-et-below-ml another: give one of them.")
    networks = sorted(Path(run).name for run in runs)
    others = {name: value for name, value in asdict(settings).items() if name != TUNED} | {"mirror": mirror}
    found: dict[Path, float] = {}
    for run in runs:
        path = Path(run) / POSTPROCESSING_FILE
        try:
            content = read_json(path)
            tuned_for, volume, tuned_after = sorted(content["networks"]), float(content[TUNED]), dict(content["steps"])
            weights = dict(content["weights"])
            if not all(isinstance(name, str) for name in tuned_for):
                raise ValueError("`networks` must be names")
        except FileNotFoundError:
            raise InputError(f"{path} is missing; `brats-tf tune-postprocessing` writes it.") from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} must hold `networks`, `weights`, `steps` and `{TUNED}`: {error!r}.") from None
        if tuned_for != networks:
            raise InputError(
                f"{path} was tuned for the networks {', '.join(tuned_for)}. Received: {', '.join(networks)}."
            )
        file = Path(run) / CHECKPOINT_FILES[checkpoint]
        if weights and file.is_file() and weights.get(Path(run).name) != sha256_of(file):
            raise InputError(
                f"{path} was tuned for other weights than those of {file}. {_remedy(run, weights.get(Path(run).name))}"
            )
        if tuned_after != others:
            raise InputError(f"{path} was tuned after the steps {tuned_after}. Received: {others}. Tune it again.")
        found[path] = volume
    if len(set(found.values())) > 1:
        volumes = ", ".join(f"{volume:g} ml in {path}" for path, volume in found.items())
        raise InputError(f"The networks must have been tuned together. Received: {volumes}. Tune them again.")
    return replace(settings, **{TUNED: volume})


def _remedy(run, sha256):
    """What to do where a run's weights are not those of this SHA-256."""
    for checkpoint, name in CHECKPOINT_FILES.items():
        if (Path(run) / name).is_file() and sha256_of(Path(run) / name) == sha256:
            return f"Predict with --checkpoint {checkpoint}."
    return "Predict the cases to tune on again, and tune it again."
