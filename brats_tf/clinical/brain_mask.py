"""The brain in the reference image: the user's mask, an installed tool, or what is left of a stripped image."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from brats_tf.clinical.convert import read_oriented
from brats_tf.clinical.grids import grid_of, grid_of_volume, largest_part, resample, to_array, to_image
from brats_tf.clinical.registration import STRIPPED
from brats_tf.data.volumes import read_segmentation, read_volume
from brats_tf.errors import InputError
from brats_tf.runtime.files import sha256_of

MASK_FILE = "brain_mask.nii.gz"  # In a patient's folder: the user's own.
LEAST_ML, MOST_ML = 300, 2500  # Of a head's brain.
TIMEOUT_S = 3600
TOOLS = {  # Name -> executable, arguments; both fetch their weights when they run for the first time.
    "hd-bet": ("hd-bet", ["-i", "{image}", "-o", "{output}", "--save_bet_mask"]),
    "synthstrip": ("mri_synthstrip", ["-i", "{image}", "-m", "{mask}"]),
}


def find_mask(reference, folder, *, patient, how):
    """The mask of the brain on the grid of an image.

    Args:
        reference: SimpleITK image that the mask is made for.
        folder: of the patient; `MASK_FILE` in it is the user's mask.
        patient: its name in messages.
        how: "auto" (the user's, else an installed tool), "file", "hd-bet", "synthstrip", or "nonzero" for images of a
            brain alone.

    Returns:
        (mask of 0 and 1 on the reference's grid, {"how", "sha256"} for the record).

    Raises:
        InputError: when there is none, a tool fails, or its volume is no brain's.
    """
    own = Path(folder) / MASK_FILE
    if how == "auto":
        how = "file" if own.is_file() else next((name for name, (tool, _) in TOOLS.items() if shutil.which(tool)), None)
        if how is None:
            raise InputError(
                f"Patient {patient}: a brain mask is needed: install HD-BET (hd-bet) or SynthStrip (mri_synthstrip), "
                f"put a mask of the reference series into {own}, or say --brain-mask nonzero where the skull is off."
            )
    if how == "file":
        mask, facts = _own(own, reference, patient)
    elif how == "nonzero":
        mask, facts = _nonzero(reference, patient), {}
    else:
        mask, facts = _by_tool(how, reference, patient)
    ml = float(to_array(mask).sum() * np.prod(reference.GetSpacing()) / 1000)
    if not LEAST_ML <= ml <= MOST_ML:
        raise InputError(
            f"Patient {patient}: the brain mask ({how}) must have {LEAST_ML} to {MOST_ML} ml; received {ml:.0f} ml."
        )
    return mask, {"how": how, "ml": round(ml, 1)} | facts


def _device_of(tool):
    """HD-BET takes a GPU unless it is told that there is none."""
    return ["-device", "cpu"] if tool == "hd-bet" and not shutil.which("nvidia-smi") else []


def _own(path, reference, patient):
    if not path.is_file():
        raise InputError(f"Patient {patient}: no {path}, which --brain-mask file takes.")
    volume = read_oriented(path, patient=patient, read=read_segmentation)
    mask = to_image(volume.voxels > 0, grid_of_volume(volume))
    return resample(mask, grid_of(reference), sitk.Transform(), kind="nearest"), {"sha256": sha256_of(path)}


def _nonzero(reference, patient):
    inside = to_array(reference) > 0
    if inside.mean() > 1 - STRIPPED:
        raise InputError(
            f"Patient {patient}: --brain-mask nonzero takes images of a brain alone, with a background of 0; received "
            f"one whose voxels are positive in {100 * inside.mean():.0f} %."
        )
    closed = sitk.BinaryMorphologicalClosing(to_image(inside, grid_of(reference)), [2, 2, 2])
    return sitk.BinaryFillhole(largest_part(closed))


def _by_tool(how, reference, patient):
    tool, arguments = TOOLS[how]
    if not shutil.which(tool):
        raise InputError(f"Patient {patient}: {tool} is not installed, which --brain-mask {how} runs.")
    with tempfile.TemporaryDirectory() as folder:
        places = {name: str(Path(folder) / f"{name}.nii.gz") for name in ("image", "output", "mask")}
        sitk.WriteImage(reference, places["image"])
        try:
            done = subprocess.run(  # noqa: S603
                [tool, *(one.format(**places) for one in arguments), *_device_of(tool)],
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise InputError(f"Patient {patient}: {tool} did not end within {TIMEOUT_S} s.") from None
        written = [
            Path(places["mask"]),
            *sorted(Path(folder).glob("output*mask*.nii.gz")),
            *sorted(Path(folder).glob("output*bet*.nii.gz")),
        ]
        path = next((one for one in written if one.is_file()), None)
        if done.returncode or path is None:
            said = " ".join((done.stderr or done.stdout).split())[-200:]
            raise InputError(f"Patient {patient}: {tool} made no mask; exit code {done.returncode}, it said: {said!r}.")
        volume = read_volume(path, case_id=patient)
        mask = to_image(volume.voxels > 0, grid_of_volume(volume))
        return resample(mask, grid_of(reference), sitk.Transform(), kind="nearest"), {"sha256": sha256_of(path)}
