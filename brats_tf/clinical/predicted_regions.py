"""What was predicted of a case, as it is brought back: its label map, and probabilities where they were written."""

from brats_tf.data.layouts import UNDERSCORED
from brats_tf.data.volumes import check_same_geometry, read_probabilities, read_segmentation
from brats_tf.errors import InputError
from brats_tf.inference.prediction_record import PROBABILITIES_FOLDER, check_beside
from brats_tf.regions import (
    CONVENTIONS,
    REGIONS,
    classes_above_threshold,
    classes_to_regions,
    labels_to_classes,
    likeliest_classes,
)


def predicted_regions(case_id, facts, predictions, *, after):
    """(label map, its regions, the function that makes classes of restored ones, the convention of its labels).

    Regions are probabilities where they are there and nothing came `after` the networks.
    """
    convention = next(
        (one for one in CONVENTIONS.values() if one.name == facts.get("convention")), UNDERSCORED.convention
    )
    labels = read_segmentation(predictions / f"{case_id}.nii.gz", case_id=case_id)
    path = predictions / PROBABILITIES_FOLDER / f"{case_id}.nii.gz"
    if after or not path.is_file() or PROBABILITIES_FOLDER not in facts.get("beside", [PROBABILITIES_FOLDER]):
        regions = classes_to_regions(labels_to_classes(labels.voxels, convention))
        return labels, regions, classes_above_threshold, convention
    if "outputs" not in facts:
        raise InputError(
            f"Case {case_id}: {predictions} was predicted by an earlier version, whose record does not say how "
            "probabilities become classes. Predict it again."
        )
    check_beside(path, facts, case_id=case_id)
    geometry, probabilities = read_probabilities(path, case_id=case_id, channels=len(REGIONS))
    check_same_geometry(labels.geometry, geometry, case_id=case_id)
    decide = likeliest_classes if facts["outputs"] == "classes" else classes_above_threshold
    return labels, probabilities, decide, convention
