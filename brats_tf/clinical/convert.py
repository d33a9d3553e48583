"""Images of series: DICOM by dcm2niix, NIfTI as it is."""

import logging
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from brats_tf.clinical.grids import grid_of_volume, to_image
from brats_tf.clinical.stack import LEAST_SLICES, stack
from brats_tf.data.volumes import TOLERANCE_MM, direction_notes, has_directions, read_volume
from brats_tf.errors import InputError

log = logging.getLogger(__name__)
TIMEOUT_S = 300


def converter_version():
    """The version of dcm2niix's wheel."""
    return version("dcm2niix")


def read_image(series, *, patient):
    """The image of a series, and the grid of its slices as the scanner made them.

    Args:
        series: `Series`.
        patient: its name in messages.

    Returns:
        (SimpleITK image, float32, `Grid`; for DICOM k runs through the slices as `stack` orders them).

    Raises:
        InputError: naming patient and series, when it is no even stack of grey slices, or cannot be read.
    """
    try:
        if not series.is_dicom:
            volume = read_oriented(series.files[0], patient=patient)
            if min(volume.voxels.shape) < LEAST_SLICES:
                raise InputError(
                    f"{series.name} must have at least {LEAST_SLICES} slices; received {min(volume.voxels.shape)}"
                )
            return _to_image(volume), grid_of_volume(volume)
        if int(series.tags.get("SamplesPerPixel", 1)) != 1:
            raise InputError(f"{series.name} must be grey; received colour images")
        grid, _ = stack(series)
        with tempfile.TemporaryDirectory() as folder:
            return _to_image(_convert(series, grid, Path(folder))), grid
    except InputError as error:
        text = str(error)
        named = text.startswith(("Case ", "Patient "))
        raise InputError(text if named else f"Patient {patient}: {text}.") from None


def read_oriented(path, *, patient, read=read_volume):
    """A NIfTI file that says where its axes lead, by `read`, which takes its path and `case_id`.

    Raises:
        InputError: when it does not say it, or cannot be read.
    """
    volume = read(path, case_id=patient)
    if not has_directions(volume.header):
        raise InputError(
            f"Patient {patient}: {Path(path).name} must say in a sform or qform where its axes lead; received neither: "
            "left and right would be a guess."
        )
    for note in direction_notes(volume.header):
        log.info(f"Note: Patient {patient}: {Path(path).name}: {note}.")
    return volume


def _convert(series, grid, folder):
    """Runs dcm2niix on links to the files of one series, and reads the image that has the grid of its headers."""
    import dcm2niix

    source, target = folder / "dicom", folder / "nifti"
    source.mkdir()
    target.mkdir()
    for number, path in enumerate(series.files):
        (source / f"{number:05}.dcm").symlink_to(path.resolve())
    command = [dcm2niix.bin, "-b", "n", "-z", "n", "-g", "i", "-w", "1", "-f", "image", "-o", str(target), str(source)]
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"{series.name}: dcm2niix did not end within {TIMEOUT_S} s") from None
    written = sorted(target.glob("*.nii"))
    if not written:
        raise InputError(f"{series.name} could not be read by dcm2niix: {_complaint(done, series)}")
    volumes = [_read(path, series) for path in written]
    for volume in volumes:
        if _same_place(grid_of_volume(volume), grid) or "_Tilt" in volume.path.name:
            return volume
    raise InputError(
        f"{series.name} has {grid.size[2]} slices of {grid.size[0]}x{grid.size[1]} pixels; dcm2niix made "
        f"{', '.join('x'.join(map(str, volume.voxels.shape)) for volume in volumes)} voxels of it, elsewhere"
    )


def _read(path, series):
    try:
        return read_volume(path, case_id=series.name)
    except InputError as error:  # Its path is a temporary one.
        text = str(error).replace(f"Case {series.name}: {path}", f"{series.name}, converted by dcm2niix,")
        raise InputError(text.rstrip(".")) from None


def _same_place(one, other):
    """Whether two grids have the same eight corners, in whatever order."""
    distances = np.linalg.norm(one.corners()[:, None] - other.corners()[None], axis=-1)
    return sorted(one.size) == sorted(other.size) and distances.min(axis=1).max() <= TOLERANCE_MM


def _complaint(done, series):
    syntax = getattr(getattr(series.headers[0], "file_meta", None), "TransferSyntaxUID", None)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("Error", "Unsupported"))]
    # Its lines name files, which may be called after people: only their first words are said.
    text = " ".join(lines[0].split()[:6]) if lines else f"it ended with exit code {done.returncode}"
    return f"{text} (pixels stored as {syntax.name})" if syntax else text


def _to_image(volume):
    return to_image(np.asarray(volume.voxels, np.float32), grid_of_volume(volume))
