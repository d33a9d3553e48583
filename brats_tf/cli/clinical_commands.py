"""The commands from a scanner's series to BraTS cases and back; see `commands`. They need the extra `clinical`."""

from dataclasses import replace
from pathlib import Path

from brats_tf.cli import options
from brats_tf.cli.arguments import postprocessing_given, runs_given, section_given
from brats_tf.cli.commands import FAILED_CASES, Command, add_checkpoint
from brats_tf.config.execution import (
    ConformOptions,
    ForwardOptions,
    PostProcessing,
    PredictionOptions,
    RestoreOptions,
)
from brats_tf.errors import InputError
from brats_tf.runtime.libraries import need_libraries

LIBRARIES = ("SimpleITK", "pydicom", "highdicom", "dcm2niix")


def conform(given):
    """Make BraTS cases of patients' DICOM or NIfTI series.

    Tells the modalities by description and sequence, converts them, registers them rigidly to the T1c, masks the brain
    and resamples each once to 1 mm: CASES/<patient>/<patient>_flair.nii.gz and so on, with conform.json, which has
    every transform, and CASES/checks.html, which is to be looked at. A patient is a folder; its name becomes the case's
    id. What cannot be told is refused, and --series-list then says it. A patient that fails is left out. Needs the
    extra `clinical`. For research; not a medical device.

    brats-tf conform scanner --out cases
    """
    need_libraries("clinical", *LIBRARIES)
    from brats_tf.clinical.conform import conform_patients
    from brats_tf.clinical.patients import find_patients
    from brats_tf.report.checking_page import write_checking_page

    failures = conform_patients(
        find_patients(given.input, given.series_list),
        out=given.out,
        options=section_given(given, ConformOptions),
        template=given.template,
        replace=given.replace,
    )
    write_checking_page(given.out, failures)
    return FAILED_CASES if failures else 0


def restore(given):
    """Bring predictions back into the space of the scanner's series, as NIfTI and DICOM SEG.

    Takes label maps of cases that `conform` made. Writes OUT/<case>/<case>_<modality>_seg.nii.gz and, for a DICOM
    series, _seg.dcm, whose segments WT, TC and ET lie on the slices of the source; and OUT/restored.json with the
    volumes in ml. Predictions with --save-probabilities are interpolated before they become labels. Needs the extra
    `clinical`.

    brats-tf restore predictions --out restored
    """
    need_libraries("clinical", *LIBRARIES)
    from brats_tf.clinical.restore import restore_predictions

    failures = restore_predictions(
        given.predictions,
        out=given.out,
        cases=given.conformed,
        source=given.source,
        options=section_given(given, RestoreOptions),
    )
    return FAILED_CASES if failures else 0


def segment(given):
    """From patients' series to label maps in their own space and a report, in one command.

    Runs conform, predict and restore: OUT/cases with checks.html, OUT/predictions, OUT/restored, and OUT/report.html.
    Run it again after an interruption: what is done is not done again. Needs the extra `clinical`. For research; not a
    medical device.

    brats-tf segment scanner --networks embedding-flair,embedding-t1,embedding-t1ce,embedding-t2 --out results
    """
    need_libraries("clinical", *LIBRARIES)
    from brats_tf.clinical.conform import conform_patients
    from brats_tf.clinical.patients import find_patients
    from brats_tf.clinical.restore import restore_predictions
    from brats_tf.config.config import Config
    from brats_tf.inference.prediction_record import read_prediction_record
    from brats_tf.report.checking_page import write_checking_page
    from brats_tf.report.volumes_page import write_volumes_page
    from brats_tf.runs.files import CHECKPOINT_FILES

    for run in runs_given(given):  # A network that is not there shows before the patients are conformed, for hours.
        Config.load(run)
        if not (run / CHECKPOINT_FILES[given.checkpoint]).is_file():
            raise InputError(f"{run} must hold {CHECKPOINT_FILES[given.checkpoint]} of a trained network.")
    cases, predictions, restored = (given.out / name for name in ("cases", "predictions", "restored"))
    failures = conform_patients(
        find_patients(given.input, given.series_list),
        out=cases,
        options=section_given(given, ConformOptions),
        template=given.template,
        replace=given.replace,
    )
    if not write_checking_page(cases, failures):
        raise InputError("No patient could be conformed: there is nothing to predict.")
    failures += _predict_rest(given, cases, predictions)
    how = {"cases": cases, "source": given.input, "options": section_given(given, RestoreOptions)}
    unrestored = restore_predictions(predictions, out=restored, **how)
    # What the record leaves out is among the failures, or of patients that are gone.
    known = {patient for patient, _ in failures} | set(read_prediction_record(predictions)["left_out"])
    failures += [one for one in unrestored if one[0] not in known]
    write_volumes_page(given.out / "report.html", cases, restored, failures)
    return FAILED_CASES if failures else 0


def _predict_rest(given, cases, predictions):
    """Predicts the cases that lack a prediction by these networks and settings. Returns the failures."""
    from brats_tf.runtime.tensorflow import import_tensorflow

    import_tensorflow()
    from brats_tf.data.discovery import find_cases
    from brats_tf.data.notes import log_skipped
    from brats_tf.inference.ensemble import load_ensemble
    from brats_tf.inference.predict import predict_cases
    from brats_tf.inference.prediction_record import finished_cases, is_made_so, read_prediction_record
    from brats_tf.inference.recording import how_made

    runs = runs_given(given)
    steps = postprocessing_given(given, runs)
    predictors = load_ensemble(runs, given.checkpoint, forward=section_given(given, ForwardOptions))
    found, skipped = find_cases(cases)
    log_skipped(skipped)
    before = read_prediction_record(predictions)
    writing = replace(section_given(given, PredictionOptions), save_probabilities=True)
    done = finished_cases(before, predictions, writing) if is_made_so(before, how_made(predictors, steps)) else set()
    newer = {case.id for case in found if _newer(cases / case.id, predictions / f"{case.id}.nii.gz")}
    wanted = [case for case in found if case.id not in done or case.id in newer]
    if not wanted:
        return []
    return predict_cases(predictors, wanted, out=predictions, postprocessing=steps, options=writing, data=cases)


def _newer(case, label_map):
    return label_map.is_file() and case.stat().st_mtime > label_map.stat().st_mtime


def _add_input(parser):
    parser.add_argument(
        "input", type=options.parse_path, metavar="INPUT", help="a folder of patients' folders, or of one patient"
    )
    parser.add_argument(
        "--series-list",
        type=options.parse_path,
        metavar="FILE",
        help="a .csv with the columns patient, modality, path: which series shows what (default: as the headers tell)",
    )
    parser.add_argument(
        "--template",
        type=options.parse_path,
        metavar="FILE",
        help="a NIfTI image of 1 mm, such as SRI24, to register the reference to (default: the scanner's axes)",
    )
    options.add_settings(parser, ConformOptions)


def _conform_options(parser):
    _add_input(parser)
    parser.add_argument(
        "--out", type=options.parse_path, metavar="CASES", default=Path("cases"), help="(default: cases)"
    )
    parser.add_argument("--replace", action="store_true", help="replace cases made of other files or options")


def _restore_options(parser):
    options.add_predictions(parser, truth=False)
    parser.add_argument(
        "--out", type=options.parse_path, metavar="DIR", default=Path("restored"), help="(default: restored)"
    )
    parser.add_argument(
        "--conformed", type=options.parse_path, metavar="CASES", help="what `conform` wrote (default: as recorded)"
    )
    parser.add_argument(
        "--source",
        type=options.parse_path,
        metavar="INPUT",
        help="where the patients are now (default: where they were)",
    )
    options.add_settings(parser, RestoreOptions)


def _segment_options(parser):
    _add_input(parser)
    parser.add_argument(
        "--out", type=options.parse_path, metavar="DIR", default=Path("segmented"), help="(default: segmented)"
    )
    options.add_networks(parser)
    add_checkpoint(parser)
    options.add_settings(parser, ForwardOptions)
    options.add_settings(parser, PostProcessing)
    options.add_tuned(parser)
    parser.add_argument(
        "--replace", action="store_true", help="replace cases and predictions made of other files, networks or options"
    )
    options.add_settings(parser, RestoreOptions)
    parser.set_defaults(phantoms=False, save_probabilities=None, save_uncertainty=None)


COMMANDS = (
    Command("conform", conform, _conform_options),
    Command("restore", restore, _restore_options),
    Command("segment", segment, _segment_options),
)
