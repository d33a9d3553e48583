"""All real cases against changed copies of their own truth: every score must move as it has to."""

import time

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from brats_tf.data.discovery import find_cases
from brats_tf.evaluation.evaluate import evaluate
from brats_tf.evaluation.results import read_scores
from brats_tf.regions import classes_to_labels, labels_to_classes
from brats_tf.runtime.system import peak_gb


def shifted(classes):
    return np.roll(classes, 2, axis=0)


def eroded(classes):
    return np.where(ndimage.binary_erosion(classes > 0), classes, 0).astype(np.uint8)


def without_et(classes):
    return np.where(classes == 3, 1, classes).astype(np.uint8)


@pytest.mark.large
@pytest.mark.parametrize("change", [shifted, eroded, without_et])
def test_every_real_case_against_a_changed_copy_of_itself(real_data, tmp_path, change, capsys):
    cases = [case for part in ("native", "uint8") for case in find_cases(real_data / part)[0]]
    assert len(cases) == 28
    (tmp_path / "p").mkdir()
    for case in cases:
        image = nib.load(case.segmentation)
        classes = labels_to_classes(np.asanyarray(image.dataobj), case.convention)
        labels = classes_to_labels(change(classes), case.convention)
        nib.save(nib.Nifti1Image(labels, image.affine), tmp_path / "p" / f"{case.id}.nii.gz")
    started = time.monotonic()
    summary, failures = evaluate(cases, predictions=tmp_path / "p", results=tmp_path / "r")
    seconds = time.monotonic() - started
    with capsys.disabled():
        print(f"\n{change.__name__}: 28 cases in {seconds:.0f} s, {seconds / 28:.2f} s a case, peak {peak_gb():.2f} GB")
    assert failures == []
    scored = read_scores(tmp_path / "r")
    for case in cases:
        wt, et = scored[case.id]["WT"], scored[case.id]["ET"]
        if change is shifted:
            # Two voxels along one axis of 1 mm: no border is further than 2 mm away.
            assert 0.3 < wt["dice"] < 1 and 0 < wt["hd95_mm"] <= 2 and wt["volume_error_ml"] == 0
        elif change is eroded:
            assert wt["sensitivity"] < 1 and wt["specificity"] == 1 and wt["volume_error_ml"] < 0
            assert wt["hd95_mm"] >= 1
        else:
            empty = et["truth_ml"] == 0
            assert (et["dice"], et["hd95_mm"]) == ((1, 0) if empty else (0, 373.13))
            assert (wt["dice"], wt["hd95_mm"], scored[case.id]["TC"]["dice"]) == (1, 0, 1)
    assert summary["WT"]["dice"]["n"] == 28
