"""SimpleITK or ANTs: which registers the series of a scanner better, and in what time?

The modalities of a case as `round_trip.py` scans them, each moved by a known rigid transform, registered to T1ce by
`clinical/registration.py` and by ANTs (`ants.registration`, "Rigid", its defaults). Compared with the known transforms:
the distance of points on the brain's surface, and the seconds. Each tool also registers the untouched files, whose
modalities are not perfectly aligned themselves; how far the two tools differ there says how far the truth can be
trusted.

Command:  python experiments/registration_tools.py DIR [--cases 4]
Time:     about 7 minutes a case on two CPU cores.
Expected: the two are as exact; SimpleITK, which `conform` uses, takes a third of the time.

Needs the extra `clinical` and antspyx (pip install antspyx). Writes RESULTS/registration_tools.json; run it again to
continue.
"""

import argparse
import importlib.metadata
import logging
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from provenance import continued, provenance
from round_trip import REFERENCE, apply, read_images, scan_case, surface_of

from brats_tf.clinical.grids import centre_of, rigid_matrix
from brats_tf.clinical.registration import foreground, register
from brats_tf.data.discovery import find_cases
from brats_tf.errors import InputError
from brats_tf.runtime.console import track
from brats_tf.runtime.files import write_json
from brats_tf.runtime.program import run_program

log = logging.getLogger("brats_tf.experiments")


def main(arguments=None):
    """Reads the arguments, measures, writes. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA", help="folder with BraTS cases")
    parser.add_argument("--cases", type=int, default=4, help="number of cases (default: 4)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default=Path(__file__).stem, help="of the results file (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=Path("results"))
    return run_program(Path(__file__).stem, partial(run, parser.parse_args(arguments)))


def run(given):
    """Measures case by case, and writes after each."""
    try:
        version = importlib.metadata.version("antspyx")
    except importlib.metadata.PackageNotFoundError:
        raise InputError("ANTs is not installed: pip install antspyx.") from None
    path = given.results / f"{given.name}.json"
    facts = {"seed": given.seed, "tools": {"simpleitk": sitk.Version.VersionString(), "ants": version}}
    done = continued(path, facts)
    for number, case in enumerate(track(find_cases(given.data)[0][: given.cases], "Registering")):
        if any(one["case"] == case.id for one in done):
            continue
        done.append({"case": case.id, "series": compare(case, np.random.default_rng(given.seed + number))})
        write_json(path, provenance() | facts | {"runs": done})
    log.info(f"Written to {path}.")


def compare(case, random):
    """Both tools on the series of one case: {modality: {tool: {"median_mm", "largest_mm", "seconds", "files_mm"}}}."""
    images = read_images(case)
    head = foreground(images[REFERENCE])
    scanned = scan_case(images, random, centre=centre_of(head))
    points = surface_of(head, random)
    fixed, to_fixed = scanned[REFERENCE]
    found = {}
    for name in set(scanned) - {REFERENCE}:
        moving, to_moving = scanned[name]
        found[name], untouched = {}, {}
        for tool, registration in (("simpleitk", with_simpleitk), ("ants", with_ants)):
            start = time.perf_counter()
            matrix = registration(fixed, moving, name)
            seconds = time.perf_counter() - start
            apart = np.linalg.norm(apply(matrix, apply(to_fixed, points)) - apply(to_moving, points), axis=1)
            untouched[tool] = apply(registration(images[REFERENCE], images[name], name), points)
            found[name][tool] = {
                "median_mm": float(np.median(apart)),
                "largest_mm": float(apart.max()),
                "seconds": seconds,
                "files_median_mm": float(np.median(np.linalg.norm(untouched[tool] - points, axis=1))),
            }
        between = np.linalg.norm(untouched["simpleitk"] - untouched["ants"], axis=1)
        found[name]["files_tools_differ_median_mm"] = float(np.median(between))
    return dict(sorted(found.items()))


def with_simpleitk(fixed, moving, name):
    """The transform that `conform` finds, (4, 4), from points of `fixed` to points of `moving`, LPS mm."""
    return register(fixed, moving, name=name).matrix


def with_ants(fixed, moving, name):
    """The same by ANTs."""
    import ants

    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / f"{number}.nii.gz") for number in range(2)]
        for image, path in zip((fixed, moving), paths, strict=True):
            sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat32), path)
        read = [ants.image_read(path) for path in paths]
        result = ants.registration(*read, type_of_transform="Rigid", outprefix=f"{folder}/{name}", random_seed=1)
        return rigid_matrix(sitk.ReadTransform(result["fwdtransforms"][0]))


if __name__ == "__main__":
    sys.exit(main())
