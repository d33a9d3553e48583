"""Which series is which: told with a reason, or refused in a sentence."""

import re
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from brats_tf.clinical.identify import identify
from brats_tf.clinical.series import Series
from brats_tf.errors import InputError


def series(words="", times=None, name="series 1", folder="one", **tags):
    echo, repetition, inversion = times or (None, None, None)
    tags = {
        "SeriesDescription": words,
        "EchoTime": echo,
        "RepetitionTime": repetition,
        "InversionTime": inversion,
    } | tags
    tags = {key: value for key, value in tags.items() if value not in (None, "")}
    return Series(name, (Path("patient") / folder / "0.dcm",), tags, (Dataset(),))


SE_T1, SE_T2, FLAIR, MPRAGE = (10, 550, None), (95, 5000, None), (120, 9000, 2500), (3, 1900, 900)


@pytest.mark.parametrize(
    ("words", "times", "agent", "modality"),
    [
        ("t2_tirm_tra_dark-fluid", FLAIR, "", "flair"),
        ("AX T2 FLAIR", FLAIR, "", "flair"),
        ("3D FLAIR post gd", FLAIR, "Gadovist", "flair"),
        ("", FLAIR, "", "flair"),
        ("t1_se_tra", SE_T1, "", "t1"),
        ("Ax T1 PRE", SE_T1, "", "t1"),
        ("AX T1 FLAIR", (10, 2500, 900), "", "t1"),
        ("t1_mprage_sag", MPRAGE, "", "t1"),
        ("t1_mprage_sag", MPRAGE, "Dotarem", "t1ce"),
        ("t1_mprage_sag", MPRAGE, "NONE", "t1"),
        ("t1_mprage_sag", MPRAGE, "NO CONTRAST", "t1"),
        ("t1_mprage_sag", MPRAGE, "N/A", "t1"),
        ("t1_mprage_sag", MPRAGE, "-", "t1"),
        ("t1_mprage_sag", MPRAGE, "kein KM", "t1"),
        ("t1_mprage_sag", MPRAGE, "NaCl", "t1"),
        ("T1 without contrast", SE_T1, "Gadovist", None),
        ("T1 MPRAGE pre", MPRAGE, "Gadovist", None),
        ("AX T1 POST-OP", SE_T1, "", "t1"),
        ("AX T1 post op Gd", SE_T1, "", "t1ce"),
        ("T1 MPRAGE post resection", MPRAGE, "", "t1"),
        ("T1 post-operative", SE_T1, "", "t1"),
        ("T1 post radiation", SE_T1, "", "t1"),
        ("T1 post craniotomy", SE_T1, "", "t1"),
        ("T1 pre-operative Gd", SE_T1, "", "t1ce"),
        ("T1 MPRAGE", MPRAGE, "Saline, Gadovist 7 ml", "t1ce"),
        ("T1 MPRAGE", MPRAGE, "?", "t1"),
        ("T1 MPRAGE", MPRAGE, "no Gadovist", "t1"),
        ("T1 MPRAGE", MPRAGE, "ohne Gadovist", "t1"),
        ("T1 MPRAGE", MPRAGE, "0 ml Gadovist", "t1"),
        ("T1 MPRAGE", MPRAGE, "NaCl 0.9% 20 ml flush", "t1"),
        ("T1 MPRAGE", MPRAGE, "NaCl Gadobutrol", "t1ce"),
        ("T1 MPRAGE", MPRAGE, "saline, gadolinium", "t1ce"),
        ("T1 MPRAGE", MPRAGE, "- Gadovist", "t1ce"),
        ("T1 MPRAGE", MPRAGE, "7.5 ml", "t1ce"),
        ("AX T1 POST CRANIAL NERVES", SE_T1, "", "t1ce"),
        ("AX T1 FS POST RADIAL", SE_T1, "", "t1ce"),
        ("AX T1 POST RADIOTHERAPY", SE_T1, "", "t1"),
        ("T1 SE pre radiotherapy Gd", SE_T1, "", "t1ce"),
        ("T1 MPRAGE +Gadavist", MPRAGE, "", "t1ce"),
        ("T1 pre and post Gd", SE_T1, "", None),
        ("AX T1 W/O CONTRAST", SE_T1, "", "t1"),
        ("AX T1 WO CONTRAST", SE_T1, "", "t1"),
        ("AX T1 WO GAD", SE_T1, "", "t1"),
        ("T1 AXIAL NO CONTRAST", SE_T1, "", "t1"),
        ("T1 NO GD", None, "", "t1"),
        ("AX T1 NON GAD", SE_T1, "", "t1"),
        ("T1 +C, MRI BRAIN W WO", SE_T1, "", "t1ce"),
        ("AX T1 POST, BRAIN W/WO CONTRAST", SE_T1, "", "t1ce"),
        ("T1 W CONTRAST", SE_T1, "", "t1ce"),
        ("T1 CE, no fat saturation", SE_T1, "", "t1ce"),
        ("t2_space_mpr", SE_T2, "", "t2"),
        ("T1 +C", SE_T1, "", "t1ce"),
        ("T1_TSE_KM", None, "", "t1ce"),
        ("", SE_T1, "gd", "t1ce"),
        ("t2_tse_cor", SE_T2, "", "t2"),
        ("", SE_T2, "", "t2"),
        ("ep2d_diff_ADC", (80, 5000, None), "", None),
        ("t2star_swi", (20, 600, None), "", None),
        ("Perfusion", (30, 1500, None), "gd", None),
        ("T1 SUB", SE_T1, "gd", None),
        ("t2_tse", SE_T1, "", None),
        ("something", None, "", None),
        ("AX T1 NO IV CONTRAST", SE_T1, "", "t1"),
        ("AX T1 W/O I.V. CONTRAST", SE_T1, "", "t1"),
        ("AX T1 before GD", SE_T1, "", "t1"),
        ("AX T1 prior to contrast", SE_T1, "", "t1"),
        ("AX T1 IV CONTRAST", SE_T1, "", "t1ce"),
        ("T1 postGd", SE_T1, "", "t1ce"),
        ("AX T1 POSTCON", SE_T1, "", "t1ce"),
        ("t1_tse_tra_postKM", SE_T1, "", "t1ce"),
        ("T1 preGd", SE_T1, "", "t1"),
        ("T1 postop", SE_T1, "", "t1"),
    ],
)
def test_words_and_times_tell_the_modality(words, times, agent, modality):
    chosen, left_out = identify([series(words, times, ContrastBolusAgent=agent)], patient="P")
    assert list(chosen) == ([modality] if modality else [])
    assert len(left_out) == (0 if modality else 1)
    assert all(one.reason for one in (*chosen.values(), *left_out))


def test_the_description_counts_more_than_the_protocol_of_the_whole_examination():
    for words, protocol, modality in (
        ("AX T1 POST GD", "BRAIN WO CONTRAST", "t1ce"),
        ("AX T1 GD", "Routine brain pre and post", "t1ce"),
        ("AX T1", "Brain post RT follow up", "t1"),
        ("AX T1", "T1 MPRAGE +C", "t1ce"),
        ("AX T1", "BRAIN W WO CONTRAST", "t1"),
        ("AX T1", "BRAIN W/O AND W GD", "t1"),
        ("AX T1", "Routine brain pre and post", "t1"),
        ("AX T1", "Kopf nativ und KM", "t1"),
        ("AX T1", "Brain without and with contrast", "t1"),
        ("AX T1", "BRAIN W/O AND W IV CONTRAST", "t1"),
        ("AX T1", "BRAIN W/O IV CONTRAST", "t1"),
        ("AX T1 GD", "MRI + MRA BRAIN", "t1ce"),
        ("AX T1", "BRAIN TUMOR W PERFUSION", "t1"),
    ):
        chosen, _ = identify([series(words, SE_T1, ProtocolName=protocol)], patient="P")
        assert list(chosen) == [modality], (words, protocol)
    _, (one,) = identify([series("AX T1", SE_T1, ProtocolName="Brain native", ContrastBolusAgent="gd")], patient="P")
    assert one.reason == "its protocol says 'native', but an agent is named"


def test_a_protocol_tells_what_a_description_leaves_open():
    _, (one,) = identify([series("AX", None, ProtocolName="MRA")], patient="P")
    assert one.reason == "'mra' in its protocol is of none of the four modalities"


def test_words_against_times_are_told_both():
    _, (one,) = identify([series("t2_tse", SE_T1)], patient="P")
    assert one.reason == "its description says 't2', but TE 10, TR 550 ms, as t1 has"


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"Modality": "CT"}, "not MR"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localiser"),
        ({"ImageType": "LOCALIZER"}, "localiser"),
        ({"ImageType": ["DERIVED", "SECONDARY", "PROJECTION IMAGE"]}, "derived"),
    ],
)
def test_what_is_no_scan_of_the_head_is_left_out(tags, reason):
    chosen, (one,) = identify([series("t1", SE_T1, **tags)], patient="P")
    assert not chosen and reason in one.reason


def test_two_series_of_one_modality_are_refused_by_name():
    two = [series("t1 tra gd", SE_T1, name="series 4"), series("t1 mprage gd", MPRAGE, name="series 9", folder="two")]
    with pytest.raises(InputError, match=r"Patient P: one series must show t1ce; received 2: series 4 .*; series 9 "):
        identify(two, patient="P")
    chosen, _ = identify(two, patient="P", named={"t1ce": "two"})
    assert chosen["t1ce"].series.name == "series 9"


def test_a_named_series_that_is_not_there_is_refused():
    with pytest.raises(InputError, match=re.escape("'three', named for t2, must be the folder or file of one series")):
        identify([series("t2", SE_T2)], patient="P", named={"t2": "three"})


@pytest.mark.parametrize(
    ("name", "modality"),
    [("x_flair.nii.gz", "flair"), ("x-t1c.nii.gz", "t1ce"), ("AX T1 post.nii", "t1ce"), ("T2w.nii.gz", "t2"),
     ("t2_space_mpr.nii.gz", "t2"), ("post_T1.nii.gz", "t1ce"), ("ax_T1_wo_contrast.nii.gz", "t1"),
     ("KM_01_t1.nii.gz", "t1"), ("P1_post_op_t1.nii.gz", "t1"), ("Study_Post_001_t1.nii.gz", "t1"),
     ("pre_contrast_T1.nii.gz", "t1"), ("without_contrast_T1.nii", "t1"), ("wo_gad_T1.nii", "t1"),
     ("ohne_KM_T1.nii", "t1"), ("post_contrast_AX_T1.nii", "t1ce"), ("GD_AX_T1.nii", "t1ce"), ("AX_T1_FLAIR.nii", None),
     ("AX_T2_FLAIR.nii.gz", "flair"), ("post_native_T1.nii", None), ("sub-01_T1w.nii.gz", "t1"),
     ("sub-01_ses-2_T2w.nii.gz", "t2"), ("sub-01_ce-gadolinium_T1w.nii.gz", "t1ce"), ("T1_sub.nii.gz", None),
     ("sub-01_ses-post_T1w.nii.gz", "t1"), ("P01_T1_flair.nii.gz", "flair"), ("P01_T2_t1.nii.gz", "t1"),
     ("P01_T1_t2.nii.gz", "t2"), ("P01_T2_t1ce.nii.gz", "t1ce"), ("T1_FLAIR.nii.gz", None),
     ("P01_AX_T1_FLAIR.nii.gz", None), ("P01_brain_mask_flair.nii.gz", None), ("tumor_seg_flair.nii.gz", None),
     ("P01_dwi_b0_t2.nii.gz", None), ("sub_01_t1.nii.gz", "t1"), ("phase_2_P01_t1ce.nii.gz", "t1ce"),
     ("P01_T1_postGd.nii.gz", "t1ce"), ("P01_T1_preGd.nii.gz", "t1"), ("brain_flair.nii.gz", "flair"),
     ("BraTS20_Training_001_t1.nii.gz", "t1"), ("brain_mask.nii.gz", None), ("scan.nii.gz", None)],
)  # fmt: skip
def test_names_tell_the_modality_of_nifti_files(name, modality):
    chosen, _ = identify([Series(name, (Path("P") / name,))], patient="P")
    assert list(chosen) == ([modality] if modality else [])
