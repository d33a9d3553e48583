"""Synthetic cases ("phantoms"): heads with tumours, written as ordinary BraTS 2020 folders.

A skull-stripped brain with folds, grey and white matter and ventricles; in it a nested tumour whose parts look
different in each modality, as they do in MRI; a smooth bias field and noise on top. Every fourth case has no
enhancing tumour. The same seed gives the same files. Lengths are in mm.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from brats_tf.config.settings import CROP
from brats_tf.data.discovery import find_cases
from brats_tf.data.layouts import SEGMENTATION, UNDERSCORED
from brats_tf.errors import WriteError
from brats_tf.regions import BRATS_2017, CLASSES, MODALITIES, classes_to_labels
from brats_tf.runtime.console import track
from brats_tf.runtime.files import atomic

log = logging.getLogger(__name__)

EXTENT_MM = (240, 240, 155)  # Left-right, front-back, head-foot: a BraTS volume.
BRAIN_RADII_MM = (67, 84, 64)
BIAS, NOISE = 0.08, 0.04  # Standard deviations of the log bias field and of the noise, relative to white matter in T1.
BRIGHTNESS = 700  # Of an intensity of 1, in the units of the files.
WITHOUT_ENHANCING = 4  # Every fourth case.
COUNTS = {"training": 12, "unseen": 4, "bench": 8}

# Tissue brightness as MRI shows it: fluid is dark in FLAIR and bright in T2, edema bright in both, the enhancing rim
# bright after contrast (t1ce), necrosis dark in T1.
TISSUES = ("grey", "white", "fluid", *CLASSES[1:])
INTENSITIES = {
    "flair": (0.70, 0.58, 0.22, 0.80, 1.35, 1.20),
    "t1": (0.84, 1.00, 0.20, 0.38, 0.54, 0.60),
    "t1ce": (0.85, 1.00, 0.22, 0.38, 0.54, 1.50),
    "t2": (0.66, 0.50, 1.25, 1.15, 1.00, 0.88),
}


@dataclass(frozen=True)
class Phantom:
    """One synthetic case: {modality: (X, Y, Z) int16} and classes (X, Y, Z) uint8."""

    volumes: dict
    classes: np.ndarray


def phantom_cases(folder, part, *, crop, seed=0):
    """The phantoms of `part`, "training", "unseen" or "bench", created in `folder` unless they exist, as `Case`s.

    Their voxels are so large that the crop covers as many mm as the paper's does.
    """
    spacing_mm = max(1, round(CROP[2] / crop[2]))
    folder = Path(folder) / f"phantoms-{spacing_mm}mm-seed{seed}" / part
    count = COUNTS[part]
    names = [f"Phantom_{part.capitalize()}_{number:03}" for number in range(1, count + 1)]
    if not all((folder / name).is_dir() for name in names):
        log.info(f"Creating {count} synthetic {part} cases with {spacing_mm} mm voxels in {folder}.")
        made = write_phantoms(folder, names=names, spacing_mm=spacing_mm, seed=seed)
        for _ in track(made, "Creating phantoms", total=count):
            pass
    return find_cases(folder)[0]


def write_phantoms(folder, *, names, spacing_mm=1, seed=0):
    """Writes phantoms as `<folder>/<name>/<name>_flair.nii.gz` and so on; those already there are kept.

    Args:
        folder: where to; it should say spacing and seed, because what is there is not compared.
        names: case ids; each fourth has no enhancing tumour. The same names, spacing and seed give the same cases.
        spacing_mm: edge of the cubic voxels; the volumes become smaller as it grows.
        seed: an int.

    Yields:
        Each name, after its files are complete.
    """
    for index, name in enumerate(names):
        target = Path(folder) / name
        if not target.is_dir():
            enhancing = index % WITHOUT_ENHANCING != WITHOUT_ENHANCING - 1
            phantom = make_phantom(name, spacing_mm=spacing_mm, seed=seed, enhancing=enhancing)
            try:
                with atomic(target) as temporary:
                    _write(phantom, temporary, name, spacing_mm)
            except WriteError:
                if not target.is_dir():  # Another process may have made the same meanwhile.
                    raise
        yield name


def make_phantom(name, *, spacing_mm, seed, enhancing):
    """Makes one `Phantom` of shape EXTENT_MM / spacing_mm, in LPS order as BraTS 2020 files are."""
    random = np.random.default_rng([seed, *name.encode()])
    shape = tuple(round(extent / spacing_mm) for extent in EXTENT_MM)
    # Folds move a point in or out a little, so that no surface is a plain ellipsoid.
    folds = _smooth(random, shape, spacing_mm, width_mm=18)
    axes = [(np.arange(size) - size / 2) * spacing_mm for size in shape]
    mm = np.meshgrid(*axes, indexing="ij", sparse=True)
    scale = random.uniform(0.93, 1.04)
    depth = _ellipsoid(mm, (0, 0, 0), [radius * scale for radius in BRAIN_RADII_MM]) + 0.025 * folds
    brain = depth < 1
    tissue = np.where(depth + 0.07 * _smooth(random, shape, spacing_mm, width_mm=9) > 0.82, 0, 1)
    for side in (-1, 1):
        tissue[_ellipsoid(mm, (side * 14, 4, 6), (8, 30, 11)) + 0.2 * folds < 1] = TISSUES.index("fluid")
    classes = _tumour(random, mm, shape, spacing_mm, enhancing=enhancing) * brain
    tissue = np.where(classes > 0, classes + TISSUES.index(CLASSES[1]) - 1, tissue)
    volumes = {name: _scan(random, tissue, brain, INTENSITIES[name], spacing_mm) for name in MODALITIES}
    return Phantom(volumes, classes.astype(np.uint8))


def _tumour(random, mm, shape, spacing_mm, *, enhancing):
    """Nested blobs: edema around a core around necrosis, as classes."""
    side = random.choice((-1, 1))
    centre = (side * random.uniform(18, 38), random.uniform(-38, 38), random.uniform(-10, 16))
    radius = random.uniform(24, 36)
    stretch = random.uniform(0.8, 1.25, size=3)
    depth = _ellipsoid(mm, centre, radius * stretch) + 0.16 * _smooth(random, shape, spacing_mm, width_mm=12)
    core, necrosis = random.uniform(0.55, 0.7), random.uniform(0.3, 0.42)
    classes = np.where(depth < 1, CLASSES.index("edema"), 0)
    classes[depth < core] = CLASSES.index("enhancing" if enhancing else "necrosis")
    classes[depth < necrosis] = CLASSES.index("necrosis")
    return classes


def _scan(random, tissue, brain, intensities, spacing_mm):
    """One modality: tissue brightness, blurred a little, times a bias field, plus noise; 0 outside the brain."""
    image = np.array(intensities)[tissue] * random.uniform(0.9, 1.1)
    image = ndimage.gaussian_filter(image, 0.7 / spacing_mm)
    image *= np.exp(BIAS * _smooth(random, tissue.shape, spacing_mm, width_mm=50))
    image += NOISE * random.standard_normal(tissue.shape)
    return np.where(brain, np.maximum(np.round(BRIGHTNESS * image), 1), 0).astype(np.int16)


def _smooth(random, shape, spacing_mm, *, width_mm):
    """A smooth random field of unit variance: coarse noise, one value each `width_mm`, interpolated."""
    coarse = [max(4, round(size * spacing_mm / width_mm)) for size in shape]
    noise = random.standard_normal(coarse)
    field = ndimage.zoom(noise, [size / few for size, few in zip(shape, coarse, strict=True)], order=2, mode="nearest")
    return field / field.std()


def _ellipsoid(mm, centre, radii):
    """Distance from `centre` in units of the radii: 1 on the ellipsoid."""
    return np.sqrt(sum(((axis - at) / radius) ** 2 for axis, at, radius in zip(mm, centre, radii, strict=True)))


def _write(phantom, folder, name, spacing_mm):
    folder.mkdir(parents=True)
    affine = np.diag([-spacing_mm, -spacing_mm, spacing_mm, 1.0])
    affine[1, 3] = EXTENT_MM[1] - 1  # The origin of BraTS 2020's files.
    arrays = phantom.volumes | {SEGMENTATION: classes_to_labels(phantom.classes, BRATS_2017)}
    for part, voxels in arrays.items():
        image = nib.Nifti1Image(voxels, affine)
        image.set_qform(affine, code=1)
        image.set_sform(affine, code=1)
        nib.save(image, folder / UNDERSCORED.file_name(name, part))
