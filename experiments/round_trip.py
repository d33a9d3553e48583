"""From a scanner and back: how far off is the registration, and what do label maps lose on the way?

Each modality of a real case is moved by a rigid transform of its own (up to 20 degrees, up to 20 mm), seen as a
clinical scanner would (FLAIR and T1 axial 0.9x0.9x5 mm, T2 coronal 0.9x0.9x3 mm, T1ce sagittal 1x1x1 mm, all oblique),
written as DICOM, and conformed. Compared with the known transforms: the distance of points on the brain's surface. The
modalities of a case are not perfectly aligned themselves; what the same registration finds between the untouched files
is reported beside it. The truth, on the case's grid, goes to each series by the transform that was found and comes back
by the true one: its Dice, over the Dice with the true transform in both directions.

Command:  python experiments/round_trip.py DIR, or --phantoms 1 for a synthetic case
Time:     about 2 minutes a case on two CPU cores.
Expected: a median error of about 0.6 mm, none above 3 mm; WT Dice of at least 0.95 of what resampling alone leaves.

Run it again to continue. Writes RESULTS/round_trip.json; needs the extra `clinical`.
"""

import argparse
import logging
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from made_up_scanner import PROTOCOLS, random_rigid, scan, write_dicom
from provenance import continued, provenance

from brats_tf.clinical.conform import conform_patients, read_conform
from brats_tf.clinical.grids import (
    Grid,
    centre_of,
    grid_of_volume,
    to_array,
    to_image,
)
from brats_tf.clinical.patients import find_patients
from brats_tf.clinical.registration import foreground, register
from brats_tf.clinical.restore import restore_regions
from brats_tf.config.execution import ConformOptions
from brats_tf.data.discovery import find_cases
from brats_tf.data.layouts import SEGMENTATION
from brats_tf.data.phantoms import write_phantoms
from brats_tf.data.volumes import read_label_classes, read_segmentation, read_volume
from brats_tf.errors import InputError
from brats_tf.regions import REGIONS, classes_to_regions
from brats_tf.runtime.console import track
from brats_tf.runtime.files import write_json
from brats_tf.runtime.program import run_program

log = logging.getLogger("brats_tf.experiments")
REFERENCE = "t1ce"
SURFACE_POINTS = 2000
MOST_TILT = 15  # Degrees by which the slices are oblique.


def main(arguments=None):
    """Reads the arguments, measures, writes. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("data", type=Path, nargs="?", metavar="DATA", help="folder with BraTS cases")
    source.add_argument("--phantoms", type=int, metavar="N", help="synthetic cases instead, of voxels of 2 mm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the DICOM files and the cases there")
    parser.add_argument("--name", default=Path(__file__).stem, help="of the results file (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=Path("results"))
    return run_program(Path(__file__).stem, partial(run, parser.parse_args(arguments)))


def run(given):
    """Measures case by case, and writes after each."""
    path = given.results / f"{given.name}.json"
    facts = {"seed": given.seed, "phantoms": given.phantoms}
    done = [one for one in continued(path, facts) if "failure" not in one]
    if given.phantoms:
        given.data = given.results / "round_trip_phantoms"
        names = [f"Phantom_{number:03}" for number in range(1, given.phantoms + 1)]
        list(write_phantoms(given.data, names=names, spacing_mm=2, seed=given.seed))
    for number, case in enumerate(track(find_cases(given.data)[0], "Round trips")):
        known = [one for one in done if one["case"] == case.id]
        if known and (not given.keep or (given.keep / case.id).is_dir()):
            continue
        done = [one for one in done if one not in known]
        with tempfile.TemporaryDirectory() as folder:
            done.append({"case": case.id, **measure(case, Path(folder), seed=given.seed + number)})
            if given.keep:
                shutil.copytree(folder, given.keep / case.id, dirs_exist_ok=True)
        write_json(path, provenance() | facts | {"runs": done})
        log.info(summary_of(done[-1]))
    log.info(f"Written to {path}.")


def measure(case, folder, *, seed):
    """Scans, conforms and compares one case. Returns {"registration": ..., "labels": ..., "seconds": ...}."""
    random = np.random.default_rng(seed)
    case.require(SEGMENTATION)
    images = read_images(case)
    head = foreground(images[REFERENCE])
    scanned = scan_case(images, random, centre=centre_of(head))
    moves = {name: move for name, (_, move) in scanned.items()}
    for number, (name, (seen, _)) in enumerate(scanned.items(), start=1):
        target, protocol = folder / "scanner" / case.id / f"series{number}", PROTOCOLS[name]
        agent = "made up" if name == REFERENCE else ""
        write_dicom(seen, target, words=protocol["words"], times=protocol["times"], number=number, agent=agent)
    patients = find_patients(folder / "scanner" / case.id)
    failures = conform_patients(patients, out=folder / "cases", options=ConformOptions(brain_mask="nonzero"))
    if failures:
        return {"failure": failures[0][1]}
    record = read_conform(folder / "cases" / case.id)
    points = surface_of(head, random)
    return {
        "registration": {name: _errors(record, moves, name, points, images) for name in PROTOCOLS if name != REFERENCE},
        "labels": _labels(case, record, moves),
        "seconds": record["seconds"],
    }


def read_images(case):
    """The modalities of a case as SimpleITK images, by name."""
    return {name: _image(read_volume(case.require(name), case_id=case.id)) for name in PROTOCOLS}


def scan_case(images, random, *, centre):
    """Each modality moved by its own transform, as its scanner sees it: {name: (image, (4, 4) head to scanner)}."""
    scanned = {}
    for name, protocol in PROTOCOLS.items():
        move = random_rigid(random, centre=centre)
        tilt = random.uniform(-MOST_TILT, MOST_TILT)
        scanned[name] = (
            scan(images[name], protocol["plane"], protocol["edges"], head_to_scanner=move, tilt=tilt)[0],
            move,
        )
    return scanned


def summary_of(one):
    """One line about a case."""
    if "failure" in one:
        return f"{one['case']}: {one['failure']}"
    errors = "; ".join(
        f"{name} {found['median_mm']:.2f} mm, at most {found['largest_mm']:.2f}"
        for name, found in one["registration"].items()
    )
    return (
        f"{one['case']}: {errors}; least WT ratio {min(found['WT']['ratio'] for found in one['labels'].values()):.3f}"
    )


def _errors(record, moves, name, points, images):
    """Distances in mm of the surface's points, where the registration puts them, from where the known transforms do."""
    there = apply(moves[REFERENCE], points)
    found = apply(np.array(record["series"][name]["case_to_series"]), there)
    apart = np.linalg.norm(found - apply(moves[name], points), axis=1)
    errors = {"median_mm": float(np.median(apart)), "largest_mm": float(apart.max())}
    try:
        own = apply(register(images[REFERENCE], images[name], name=name).matrix, points)
    except InputError:
        return errors
    among = np.linalg.norm(own - points, axis=1)
    rest = np.linalg.norm(found - apply(moves[name], own), axis=1)
    return errors | {
        "files_median_mm": float(np.median(among)),
        "files_largest_mm": float(among.max()),
        "without_files_median_mm": float(np.median(rest)),
        "without_files_largest_mm": float(rest.max()),
    }


def _labels(case, record, moves):
    """Dice of the truth that went to a series and back, by the found and by the true transform, and their ratio."""
    segmentation = read_segmentation(case.segmentation, case_id=case.id)
    truth = classes_to_regions(read_label_classes(segmentation, case))
    grid = Grid.from_dict(record["grid"])
    on_case = restore_regions(truth, grid_of_volume(segmentation), grid, moves[REFERENCE])
    found = {}
    for name, series in record["series"].items():
        native = Grid.from_dict(series["grid"])
        true = moves[name] @ np.linalg.inv(moves[REFERENCE])
        dice = []
        for matrix in (np.array(series["case_to_series"]), true):
            back = restore_regions(restore_regions(on_case, grid, native, matrix), native, grid, np.linalg.inv(true))
            dice.append([_dice(on_case[..., region], back[..., region]) for region in range(len(REGIONS))])
        found[name] = {
            region: {"dice": first, "alone": second, "ratio": first / second if second else 1.0}
            for region, first, second in zip(REGIONS, *dice, strict=True)
        }
    return found


def _dice(one, other):
    total = one.sum() + other.sum()
    return float(2 * (one & other).sum() / total) if total else 1.0


def _image(volume):
    return to_image(volume.voxels.astype(np.float32), grid_of_volume(volume))


def surface_of(head, random):
    """Points on the surface of a mask, (N, 3), mm."""
    edge = np.argwhere(to_array(sitk.BinaryContour(head)) > 0)
    chosen = edge[random.permutation(len(edge))[:SURFACE_POINTS]]
    return np.array([head.TransformIndexToPhysicalPoint([int(index) for index in one]) for one in chosen])


def apply(matrix, points):
    """Points (N, 3) moved by a matrix (4, 4)."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


if __name__ == "__main__":
    sys.exit(main())
