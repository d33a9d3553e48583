"""Two real cases of two conventions, through prediction and evaluation, against plain NumPy."""

import csv

import nibabel as nib
import numpy as np
import pytest

from brats_tf.config.config import Config
from brats_tf.config.execution import PredictionOptions
from brats_tf.data.discovery import find_cases
from brats_tf.errors import InputError
from brats_tf.evaluation.evaluate import evaluate
from brats_tf.inference.ensemble import load_ensemble
from brats_tf.inference.predict import predict_cases
from brats_tf.models.build import build_network
from brats_tf.runs.network import load_network
from brats_tf.training.train import train

NAMES = {"BraTS2021_00000": 4, "BraTS-SSA-00041-000": 3}  # The number of the enhancing tumour.


@pytest.fixture(scope="module")
def predicted(real_data, tmp_path_factory):
    """Two cases predicted by an untrained FLAIR network, with probabilities: (cases, run, folder)."""
    folder = tmp_path_factory.mktemp("real")
    config = Config.from_preset(
        "embedding", modalities=("flair",), crop=(128, 128, 72), backbone="tiny", weights="none"
    )
    config.save(folder)
    build_network(config).save_weights(folder / "network.weights.h5")
    cases = [case for case in find_cases(real_data / "native")[0] if case.id in NAMES]
    assert (
        predict_cases(
            load_ensemble([folder]), cases, out=folder / "out", options=PredictionOptions(save_probabilities=True)
        )
        == []
    )
    return cases, folder


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.slow
def test_probabilities_and_label_map_agree_with_plain_numpy(predicted, number):
    cases, folder = predicted
    case = cases[number]
    flair = nib.load(case.volumes["flair"])
    voxels = flair.get_fdata()
    is_ras = nib.aff2axcodes(flair.affine) == ("R", "A", "S")  # The other one is LPS.
    brain = voxels[voxels != 0]
    voxels = np.where(voxels != 0, (voxels - brain.mean()) / brain.std(), 0)
    voxels = voxels[::-1, ::-1] if is_ras else voxels
    cropped = voxels.transpose(1, 0, 2)[56:184, 56:184, 41:113]
    _, network = load_network(folder)
    probabilities = network(cropped[None, ..., None].astype("float32"), training=False)[0].numpy()
    full = np.zeros((240, 240, 155, 3))
    full[56:184, 56:184, 41:113] = probabilities
    full = full.transpose(1, 0, 2, 3)
    full = full[::-1, ::-1] if is_ras else full

    written = nib.load(folder / "out" / "probabilities" / f"{case.id}.nii.gz")
    np.testing.assert_allclose(written.get_fdata(), full, atol=1e-4)
    labels = nib.load(folder / "out" / f"{case.id}.nii.gz")
    wt, tc, et = np.moveaxis(written.get_fdata() > 0.5, -1, 0)
    expected = np.where(et, NAMES[case.id], np.where(tc, 1, np.where(wt, 2, 0)))
    np.testing.assert_array_equal(np.asanyarray(labels.dataobj), expected)
    assert labels.shape == flair.shape
    np.testing.assert_array_equal(labels.affine, flair.affine)
    assert nib.aff2axcodes(labels.affine) == nib.aff2axcodes(flair.affine)
    for code in ("qform_code", "sform_code"):
        assert labels.header[code] == flair.header[code]


@pytest.mark.slow
def test_dice_agrees_with_plain_numpy(predicted, tmp_path):
    cases, folder = predicted
    _, failures = evaluate(cases, predictions=folder / "out", results=tmp_path)
    assert failures == []
    rows = csv.DictReader((tmp_path / "cases.csv").read_text().splitlines())
    received = {(row["case"], row["region"]): float(row["dice"]) for row in rows}
    for case in cases:
        truth = nib.load(case.segmentation).get_fdata()
        prediction = nib.load(folder / "out" / f"{case.id}.nii.gz").get_fdata()
        enhancing = NAMES[case.id]
        for region, labels in {"WT": (1, 2, enhancing), "TC": (1, enhancing), "ET": (enhancing,)}.items():
            t, p = np.isin(truth, labels), np.isin(prediction, labels)
            expected = 2 * (t & p).sum() / (t.sum() + p.sum())
            assert received[case.id, region] == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_real_cases_with_missing_modalities(real_data, tmp_path, capsys):
    """One case has T1 and T1ce alone, the other only its segmentation."""
    for modality in ("flair", "t1", "t1ce"):
        config = Config.from_preset(
            "embedding", modalities=(modality,), crop=(64, 64, 36), backbone="tiny", weights="none"
        )
        (tmp_path / modality).mkdir()
        config.save(tmp_path / modality)
        build_network(config).save_weights(tmp_path / modality / "network.weights.h5")
    members = load_ensemble([tmp_path / modality for modality in ("flair", "t1", "t1ce")])
    (case,), skipped = find_cases(real_data / "odd" / "missing_modality")
    assert [reason for _, reason in skipped] == ["case BraTS-SSA-00092-000 has a segmentation but no modality"]
    assert predict_cases(members, [case], out=tmp_path / "out") == []
    assert "Case BraTS-SSA-00008-000: flair missing, predicted from t1, t1ce." in capsys.readouterr().out
    assert (tmp_path / "out" / "BraTS-SSA-00008-000.nii.gz").is_file()
    with pytest.raises(InputError, match=r"no flair in .*expected BraTS-SSA-00008-000-t2f.nii.gz, found t1, t1ce, seg"):
        train([Config.load(tmp_path / "flair")], [case], runs=tmp_path / "runs", cache_dir=tmp_path / "cache")
