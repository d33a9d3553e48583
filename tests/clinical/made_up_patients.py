"""A made-up head in a made-up scanner, for the tests here."""

import functools

import numpy as np
from made_up_scanner import PROTOCOLS, random_rigid, scan, write_dicom

from brats_tf.clinical.grids import Grid, brats_grid, to_image
from brats_tf.data.phantoms import make_phantom

SPACING_MM = 4
PERSON = {
    "PatientID": "4711-SECRET",
    "PatientName": "Doe^Jane",
    "PatientBirthDate": "19600102",
    "AccessionNumber": "ACC998877",
    "ReferringPhysicianName": "Brown^Dr",
    "InstitutionName": "Saint Elsewhere",
}
EDGES = {"axial": (3.0, 6.0), "sagittal": (4.0, 4.0), "coronal": (3.0, 6.0)}


@functools.cache
def head():
    """{modality: SimpleITK image} of a phantom, and its classes (X, Y, Z) with their `Grid`."""
    phantom = make_phantom("Phantom_Clinical_001", spacing_mm=SPACING_MM, seed=0, enhancing=True)
    size = phantom.classes.shape
    matrix = brats_grid((0, 0, 0), size).matrix * SPACING_MM
    matrix[3, 3] = 1
    grid = Grid(size, matrix)
    images = {name: to_image(voxels.astype(np.float32), grid) for name, voxels in phantom.volumes.items()}
    return images, phantom.classes, grid


def scan_patient(folder, *, modalities=tuple(PROTOCOLS), seed=0, **changes):
    """Writes the DICOM series of one patient, each moved by its own rigid transform. Returns {modality: matrix}."""
    random = np.random.default_rng(seed)
    moves, person = {}, dict(PERSON)
    for number, name in enumerate(modalities, start=1):
        protocol = PROTOCOLS[name]
        moves[name] = random_rigid(random, degrees=10, shift_mm=10)
        seen, _ = scan(
            head()[0][name], protocol["plane"], EDGES[protocol["plane"]], head_to_scanner=moves[name], tilt=5
        )
        agent = "made up" if name == "t1ce" else ""
        words = {"words": protocol["words"], "times": protocol["times"], "number": number, "agent": agent}
        person["StudyInstanceUID"] = "1.2.826.0.1.3680043.8.498.1"
        write_dicom(seen, folder / f"series{number}", **words, person=person, **changes)
    return moves


def ball(size=(20, 20, 12), spacing=(10.0, 10.0, 12.0)):
    """A small SimpleITK image of a ball, for faults that show before anything is registered."""
    grid = Grid(size, np.diag([*spacing, 1.0]))
    index = np.stack(np.indices(size), axis=-1) - (np.array(size) - 1) / 2
    mm = np.linalg.norm(index * spacing, axis=-1)
    return to_image(np.where(mm < 60, 1000 - 5 * mm, 0).astype(np.float32), grid)


def noise(size=(20, 20, 12), spacing=(10.0, 10.0, 12.0)):
    """An image of noise alone: no head lies in it."""
    voxels = np.random.default_rng(0).uniform(0, 1500, size).astype(np.float32)
    return to_image(voxels, Grid(size, np.diag([*spacing, 1.0])))
