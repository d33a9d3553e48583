"""Each step on label maps drawn by hand, and the threshold of ET that tuning must find."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from brats_tf.config.execution import PostProcessing
from brats_tf.errors import InputError
from brats_tf.evaluation.tune import THRESHOLDS_ML, cross_validate, et_scores, save_tuned, tune_et_threshold
from brats_tf.inference.postprocessing import postprocess, volume_ml, with_tuned
from brats_tf.runtime.files import sha256_of

MM = (1, 1, 1)


def drawn():
    """A tumour of 6x6x6 with a hole of one voxel and ET of 8, a speck of 2 voxels off it, one voxel at its corner."""
    classes = np.zeros((20, 20, 20), np.uint8)
    classes[4:10, 4:10, 4:10] = 2
    classes[5:7, 5:7, 5:7] = 3
    classes[8, 8, 8] = 0
    classes[10, 10, 10] = 2
    classes[15, 15, 15:17] = 3
    return classes


def test_no_steps_change_nothing():
    classes = drawn()
    assert not PostProcessing()
    np.testing.assert_array_equal(postprocess(classes, MM, PostProcessing()), classes)


def test_small_parts_go_and_what_touches_by_a_corner_stays():
    got = postprocess(drawn(), MM, PostProcessing(remove_below_ml=0.003))
    assert not got[15].any() and got[10, 10, 10] == 2
    assert (got > 0).sum() == (drawn() > 0).sum() - 2
    # 2 voxels of 2x1x1 mm are 4 mm3.
    np.testing.assert_array_equal(postprocess(drawn(), (2, 1, 1), PostProcessing(remove_below_ml=0.003)), drawn())


def test_holes_become_edema():
    got = postprocess(drawn(), MM, PostProcessing(fill_holes=True))
    expected = drawn()
    expected[8, 8, 8] = 2
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("below", "kept"), [(0.010, True), (0.0101, False)])
def test_little_enhancing_tumour_becomes_necrosis(below, kept):
    got = postprocess(drawn(), MM, PostProcessing(drop_et_below_ml=below))
    assert (got == 3).sum() == (10 if kept else 0)
    assert (got == 1).sum() == (0 if kept else 10)
    np.testing.assert_array_equal(got > 0, drawn() > 0)


def test_the_input_is_left_alone_and_steps_follow_their_order():
    classes = drawn()
    got = postprocess(classes, MM, PostProcessing(remove_below_ml=0.003, drop_et_below_ml=0.0095))
    np.testing.assert_array_equal(classes, drawn())
    assert not (got == 3).any()  # Of ten voxels two went with their speck, and eight are too few.


def test_impossible_volumes_are_refused():
    with pytest.raises(InputError, match="`remove_below_ml` must be a number from 0 to 10000. Received: -1"):
        PostProcessing(remove_below_ml=-1)


def scored(size, overlap):
    """The scores of a truth of `size` voxels (0: none) and a prediction of which `overlap` are right and 40 in all."""
    truth, prediction = np.zeros((2, 400), bool)
    truth[:size] = True
    prediction[size - overlap : size - overlap + 40] = True
    return et_scores(truth, prediction, (5, 2, 1))


def test_the_threshold_is_the_least_of_the_best():
    # 40 voxels of 0.01 ml: 0.4 ml are predicted where there is nothing, so dropping below 0.5 ml wins that case.
    tuned = tune_et_threshold([scored(0, 0)])
    assert (tuned["drop_et_below_ml"], tuned["cases"]) == (0.5, 1)
    assert tuned["mean_dice"]["0.3"] == 0 and tuned["mean_dice"]["0.5"] == 1
    # Where the truth has them, dropping loses; with both kinds of cases the larger gain decides.
    right = scored(40, 40)
    assert tune_et_threshold([right])["drop_et_below_ml"] == 0
    half = scored(40, 10)
    assert tune_et_threshold([scored(0, 0), half])["drop_et_below_ml"] == 0.5
    assert tune_et_threshold([scored(0, 0), right, half])["drop_et_below_ml"] == 0


def test_no_case_chooses_its_own_volume():
    none, right = scored(0, 0), scored(40, 40)  # 0.5 ml is best for the first, 0 for the second.
    cross_validated = cross_validate({"a": [none], "b": [right, right]})
    assert cross_validated == {"mean_dice": 0, "drop_et_below_ml": {"a": 0, "b": 0.5}}
    assert cross_validate({"a": [none], "b": [none, right], "c": [none]}) == {
        "mean_dice": 0.75,
        "drop_et_below_ml": {"a": 0.5, "b": 0.5, "c": 0.5},
    }


def test_it_is_stored_with_the_runs_and_only_good_for_them(tmp_path):
    runs = [tmp_path / name for name in ("flair", "t2")]
    with pytest.raises(
        InputError, match=r"flair/postprocessing.json is missing; `brats-tf tune-postprocessing` writes it"
    ):
        with_tuned(PostProcessing(), runs)
    steps = asdict(PostProcessing(fill_holes=True)) | {"mirror": "none"}
    del steps["drop_et_below_ml"]
    save_tuned({"drop_et_below_ml": 0.3, "cases": 2, "mean_dice": {}}, runs, steps, {})
    assert with_tuned(PostProcessing(fill_holes=True), runs[::-1]) == PostProcessing(
        fill_holes=True, drop_et_below_ml=0.3
    )
    with pytest.raises(InputError, match="'mirror': 'none'.* Received: .*'mirror': 'all'"):
        with_tuned(PostProcessing(fill_holes=True), runs, mirror="all")
    with pytest.raises(
        InputError, match="tuned after the steps .*'fill_holes': True.* Received: .*'fill_holes': False"
    ):
        with_tuned(PostProcessing(), runs)
    assert json.loads((runs[1] / "postprocessing.json").read_text())["networks"] == ["flair", "t2"]
    kept = (runs[1] / "postprocessing.json").read_text()
    (runs[1] / "postprocessing.json").write_text(kept.replace("0.3", "0.5"))
    with pytest.raises(InputError, match=r"tuned together. Received: 0.3 ml in .*flair.*, 0.5 ml in .*t2"):
        with_tuned(PostProcessing(fill_holes=True), runs)
    (runs[1] / "postprocessing.json").write_text(kept)
    with pytest.raises(InputError, match="--tuned takes the volume that was tuned, and --drop-et-below-ml another"):
        with_tuned(PostProcessing(fill_holes=True, drop_et_below_ml=0.5), runs)
    with pytest.raises(InputError, match="was tuned for the networks flair, t2. Received: flair"):
        with_tuned(PostProcessing(fill_holes=True), runs[:1])
    for number, name in enumerate(("network.weights.h5", "best.weights.h5")):
        (runs[0] / name).write_bytes(bytes([number]))
    shas = {"flair": sha256_of(runs[0] / "best.weights.h5"), "t2": "0"}
    save_tuned({"drop_et_below_ml": 0.3, "cases": 2, "mean_dice": {}}, runs, steps, shas)
    with pytest.raises(InputError, match="tuned for other weights than .* Predict with --checkpoint best."):
        with_tuned(PostProcessing(fill_holes=True), runs)
    (runs[0] / "best.weights.h5").unlink()
    with pytest.raises(InputError, match="other weights .* Predict the cases to tune on again, and tune it again."):
        with_tuned(PostProcessing(fill_holes=True), runs)
    for damaged in ("[]", '{"networks": null, "drop_et_below_ml": 1, "steps": {}, "weights": {}}', "{"):
        (runs[0] / "postprocessing.json").write_text(damaged)
        with pytest.raises(InputError, match="must hold `networks`, `weights`, `steps` and `drop_et_below_ml`"):
            with_tuned(PostProcessing(), runs)


@pytest.mark.parametrize(("voxels", "below"), [(625, 0.75), (1250, 1.5), (2500, 3.0)])
def test_tuning_and_prediction_agree_on_a_volume_at_the_threshold(voxels, below):
    spacing = (1, 1, 1.2)
    mask = np.arange(4000).reshape(20, 20, 10) < voxels
    scores = dict(zip(THRESHOLDS_ML, et_scores(mask, mask, spacing), strict=True))
    kept = (postprocess(3 * mask.astype(np.uint8), spacing, PostProcessing(drop_et_below_ml=below)) == 3).any()
    assert kept == (scores[below] == 1) == (volume_ml(mask, spacing) >= below)


def test_small_components_go_before_holes_are_filled():
    """A shell of 26 voxels, which a filled hole would make 27: what is too small is decided of what was predicted."""
    shell = np.zeros((9, 9, 9), np.uint8)
    shell[3:6, 3:6, 3:6] = 2
    shell[4, 4, 4] = 0
    assert not postprocess(shell, (1, 1, 1), PostProcessing(remove_below_ml=0.027, fill_holes=True)).any()
    assert postprocess(shell, (1, 1, 1), PostProcessing(remove_below_ml=0.026)).any()  # Below it, not up to it.


def test_a_cavity_that_opens_over_an_edge_alone_is_a_hole():
    shell = np.zeros((9, 9, 9), np.uint8)
    shell[3:6, 3:6, 3:6] = 2
    shell[4, 4, 4] = shell[3, 3, 4] = 0
    assert postprocess(shell, (1, 1, 1), PostProcessing(fill_holes=True))[4, 4, 4]
