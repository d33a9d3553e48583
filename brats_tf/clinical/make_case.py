"""One BraTS case of the chosen series: each resampled once, by all its transforms together, and masked."""

import logging
import time

import numpy as np
import SimpleITK as sitk

from brats_tf.clinical.brain_mask import find_mask
from brats_tf.clinical.convert import read_image, read_oriented
from brats_tf.clinical.grids import (
    Grid,
    brats_grid,
    centre_of,
    grid_of,
    grid_of_volume,
    header_on,
    largest_part,
    matrix_transform,
    resample,
    to_array,
    to_image,
    top_of,
)
from brats_tf.clinical.pictures import save_checks
from brats_tf.clinical.registration import register
from brats_tf.data.layouts import UNDERSCORED
from brats_tf.data.volumes import Volume, write_volume
from brats_tf.errors import InputError, format_shape

log = logging.getLogger(__name__)
CHECKS_FOLDER = "checks"
LEAST_SHARE_ON_GRID, USUAL_SHARE_ON_GRID = 0.9, 0.99  # Of a brain mask; resampling alone changes a per mille.
EDGE_TOLERANCE_MM = 0.01
REFERENCES = ("t1ce", "t1", "flair", "t2")  # The others are registered to the first that is there; AlbuNet paper: T1c.
STEPS = ("series", "conversion", "bias field", "registration", "brain mask", "resampling", "pictures")
LEAST_INTENSITY = 1e-3  # Of a brain's voxel, as a share of its mean: 0 is the background's alone.


def make_case(patient, chosen, folder, options, template, tell):
    """Writes volumes and pictures of a case into `folder`.

    Args:
        patient: `Patient`.
        chosen: {modality: `Choice`}.
        folder: an empty one.
        options: `ConformOptions`.
        template: path of an image to register the reference to, or None.
        tell: called with the name of each step of `STEPS`.

    Returns:
        What `conform.json` says of the case: grid, reference, series with their transforms, mask, seconds.
    """
    seconds, started = {}, time.monotonic()

    def done(step, following):
        nonlocal started
        seconds[step] = round(time.monotonic() - started, 2)
        started = time.monotonic()
        if following:
            tell(following)

    tell("conversion")
    images, grids = {}, {}
    for modality, choice in chosen.items():
        images[modality], grids[modality] = read_image(choice.series, patient=patient.id)
    done("conversion", "bias field")
    if options.n4:
        images = {modality: _without_bias(image) for modality, image in images.items()}
    done("bias field", "registration")
    reference = next(modality for modality in REFERENCES if modality in images)
    found = _register(patient, chosen, images, reference, options)
    to_reference, template_facts, template_grid = _to_template(patient, images[reference], template)
    done("registration", "brain mask")
    mask, mask_facts = find_mask(images[reference], patient.folder, patient=patient.id, how=options.brain_mask)
    done("brain mask", "resampling")
    part = largest_part(mask)
    grid = template_grid or brats_grid(centre_of(part), top=top_of(part))
    brain = to_array(resample(mask, grid, matrix_transform(to_reference), kind="nearest")) > 0
    mask_facts |= {"share_on_grid": share_on_grid(brain, grid, mask_facts["ml"], f"Patient {patient.id}")}
    transforms = {modality: found[modality][0] @ to_reference for modality in images}
    arrays = {
        modality: _one_case(images[modality], grid, transforms[modality], brain, f"Patient {patient.id}: {modality}")
        for modality in images
    }
    like = Volume(brain, header_on(grid), folder)
    for modality, array in arrays.items():
        write_volume(folder / UNDERSCORED.file_name(patient.id, modality), array, like=like)
    done("resampling", "pictures")
    save_checks(folder / CHECKS_FOLDER, images[reference], mask, arrays, brain, reference)
    done("pictures", None)
    series = {
        modality: {
            "number": chosen[modality].series.tags.get("SeriesNumber"),
            "reason": chosen[modality].reason,
            "is_dicom": chosen[modality].series.is_dicom,
            "sha256": chosen[modality].series.sha256,
            "grid": grids[modality].to_dict(),
            "case_to_series": np.round(transforms[modality], 6).tolist(),
            "registration": found[modality][1],
        }
        for modality in images
    }
    facts = {"grid": grid.to_dict(), "reference": reference, "series": series, "brain_mask": mask_facts}
    return facts | {"template": template_facts, "seconds": seconds}


def check_template(path):
    """The volume of a template. Raises `InputError` unless it is readable, of 1 mm, and says where its axes lead."""
    volume = read_oriented(path, patient="template")
    edges = grid_of_volume(volume).spacing
    if max(abs(edge - 1) for edge in edges) > EDGE_TOLERANCE_MM:
        received = format_shape(f"{edge:.3g}" for edge in edges)
        raise InputError(f"{path}: a template must have voxels of 1 mm; received {received} mm.")
    return volume


def share_on_grid(brain, grid, ml, who):
    """How much of a mask of so many ml lies on the case's grid. Raises `InputError` where much is outside of it."""
    share = float(brain.sum()) * float(np.prod(grid.spacing)) / 1000 / ml
    size = format_shape(grid.size)
    if share < LEAST_SHARE_ON_GRID:
        raise InputError(
            f"{who}: the case's grid of {size} mm must hold the brain; received a mask of which {100 * share:.0f} % "
            "lies on it: is the mask the brain alone, and the template right?"
        )
    if share < USUAL_SHARE_ON_GRID:
        log.info(
            f"{who}: {100 * (1 - share):.1f} % of the brain mask lies below the case's grid of {size} mm, or beside."
        )
    return round(share, 4)


def _register(patient, chosen, images, reference, options):
    """{modality: (matrix from the reference to it, facts or a word)}."""
    found = {reference: (np.eye(4), "the reference")}
    frames = {choice.series.frame for choice in chosen.values()}
    if options.registration == "none" and len(frames) > 1:
        raise InputError(
            f"Patient {patient.id}: without registration all series must have one frame of reference; received "
            f"{len(frames)}."
        )
    for modality, image in images.items():
        if modality == reference:
            continue
        if options.registration == "none":
            found[modality] = (np.eye(4), "none, as asked")
            continue
        name = f"Patient {patient.id}: {chosen[modality].series.name} ({modality})"
        try:
            result = register(images[reference], image, name=name)
        except InputError as error:
            raise InputError(f"{error}.") from None
        found[modality] = (result.matrix, result.to_dict())
    return found


def _to_template(patient, reference, template):
    """(matrix from the template to the reference, facts, the template's grid), or the identity without a template."""
    if template is None:
        return np.eye(4), None, None
    volume = check_template(template)
    image = to_image(np.asarray(volume.voxels, np.float32), grid_of_volume(volume))
    result = register(image, reference, name=f"Patient {patient.id}: the reference, to the template")
    return result.matrix, result.to_dict(), grid_of_volume(volume)


def _one_case(image, grid, matrix, brain, name):
    """One modality on the case's grid, float32: positive in the brain, 0 outside and where nothing was scanned."""
    box, part = _box(grid, brain)
    array = to_array(resample(image, part, matrix_transform(matrix), kind="spline"))
    whole = to_image(np.ones(image.GetSize(), bool), grid_of(image))
    seen = to_array(resample(whole, part, matrix_transform(matrix), kind="nearest")) > 0
    inside = brain[box] & seen
    if not inside.any():
        raise InputError(f"{name} shows nothing of the brain in the mask: is it of the same session?")
    shifted = array - min(float(to_array(image).min()), 0.0)
    least = LEAST_INTENSITY * float(shifted[inside].mean())
    found = np.zeros(brain.shape, np.float32)
    found[box] = np.where(inside, np.maximum(shifted, least), 0)
    return found


def _box(grid, brain):
    """(slices of the box around the brain, the part of the grid there)."""
    filled = [np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    first, last = (np.array([one[end] for one in filled]) for end in (0, -1))
    matrix = grid.matrix.copy()
    matrix[:3, 3] += matrix[:3, :3] @ first
    box = tuple(slice(int(low), int(high) + 1) for low, high in zip(first, last, strict=True))
    return box, Grid(tuple(int(n) for n in last - first + 1), matrix)


def _without_bias(image):
    """N4 on a third of the voxels along each axis, its field applied to all of them."""
    factor = [max(1, round(3 / edge)) for edge in image.GetSpacing()]
    small = sitk.Shrink(image, factor)
    mask = sitk.OtsuThreshold(small, 0, 1, 200)
    filter_ = sitk.N4BiasFieldCorrectionImageFilter()
    filter_.SetMaximumNumberOfIterations([30, 30, 20])
    filter_.Execute(small, mask)
    return image / sitk.Exp(filter_.GetLogBiasFieldAsImage(image))
