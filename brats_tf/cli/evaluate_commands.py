"""The commands that predict, score and report; see `train_commands`."""

from pathlib import Path

from brats_tf.cli import options
from brats_tf.cli.arguments import (
    cases_to_score,
    folder,
    postprocessing_given,
    runs_given,
    section_given,
)
from brats_tf.cli.commands import FAILED_CASES, Command, add_checkpoint
from brats_tf.config.config import Config
from brats_tf.config.execution import EvaluationOptions, PostProcessing, PredictionExtras, ReportOptions


def predict(given):
    """Predict label maps with the averaged networks.

    Writes OUT/<case>.nii.gz with each case's own geometry and label convention. A case that lacks a modality is
    predicted from the others. OUT/prediction.json records the networks, the steps after them (none by default), seconds
    and, for several networks, their uncertainty.

    brats-tf predict BraTS2020_ValidationData --out predictions
    """
    from brats_tf.runtime.tensorflow import import_tensorflow

    import_tensorflow()
    from brats_tf.inference.ensemble import load_ensemble
    from brats_tf.inference.predict import predict_cases

    runs = runs_given(given)
    postprocessing = postprocessing_given(given, runs)
    predictors = load_ensemble(runs, given.checkpoint)
    failures = predict_cases(
        predictors,
        cases_to_score(given, runs, predictors[0].config),
        out=folder(given, "out"),
        postprocessing=postprocessing,
        extras=section_given(given, PredictionExtras),
    )
    return FAILED_CASES if failures else 0


def evaluate(given):
    """Score label maps: Dice, HD95, sensitivity and more.

    Writes RESULTS/cases.csv and RESULTS/summary.json, and prints the papers' tables. A region empty in truth and
    prediction scores Dice 1 and HD95 0, empty in one of them 0 and 373.13 mm, as on the BraTS platform; with
    --empty-masks nan it has no score where both are empty, and no distance where one is. Lesion-wise scores follow
    BraTS 2023. With --blind-classifier the networks predict once more, into OUT/blinded, with classifiers that see
    nothing of the case; RESULTS/classifier.json and the report compare.

    brats-tf evaluate BraTS2020 --cases validation
    """
    from brats_tf.evaluation.evaluate import evaluate as score
    from brats_tf.evaluation.evaluate import show_table

    folders = {"predictions": folder(given, "out"), "results": folder(given, "results")}
    cases, scoring = _cases(given), section_given(given, EvaluationOptions)
    summary, failures = score(cases, **folders, options=scoring)
    show_table({"ours": summary})
    if scoring.blind_classifier:
        from brats_tf.runtime.tensorflow import import_tensorflow

        import_tensorflow()
        from brats_tf.evaluation.contribution import classifier_contribution

        classifier_contribution(cases, runs=runs_given(given), **folders, empty=scoring.empty_masks)
    return FAILED_CASES if failures else 0


def report(given):
    """Write an HTML report of predictions and scores.

    Run it after predict and evaluate, with the same arguments: RESULTS/report.html is one self-contained file with
    scores and intervals beside the paper's, distributions, slices to scroll through, worst and best cases, a sortable
    table, training curves, uncertainty, settings and hashes.

    brats-tf report BraTS2020 --cases validation
    """
    from brats_tf.runtime.tensorflow import import_tensorflow

    import_tensorflow()
    from brats_tf.report.report import write_report

    folders = {"predictions": folder(given, "out"), "results": folder(given, "results")}
    write_report(_cases(given), runs=runs_given(given), **folders, options=section_given(given, ReportOptions))


def tune_postprocessing(given):
    """Find the best volume for --drop-et-below-ml.

    Reads OUT/<case>.nii.gz, predicted by the same networks with the same other steps but without --drop-et-below-ml,
    and the truth; writes postprocessing.json into the folder of each network, for `predict --tuned`. Refuses cases that
    trained a network.

    brats-tf predict BraTS2020 --cases validation --out tuning
    brats-tf tune-postprocessing BraTS2020 --cases validation --out tuning
    brats-tf predict BraTS2020_ValidationData --tuned
    """
    from brats_tf.evaluation.tune import tune_postprocessing as tune

    failures = tune(_cases(given), predictions=folder(given, "out"), runs=runs_given(given))
    return FAILED_CASES if failures else 0


def paper_figures(given):
    """Draw the papers' figures from a trained network.

    Writes RUN/figures/overlay-<case>.png (the embedding paper's Figure 2, for this one network) and, for its networks,
    planes-<case>.png (its Figures 3 and 4). --cases validation takes a case that training has not seen.

    brats-tf paper-figures runs/flair BraTS2020 --case BraTS20_Training_001
    """
    from brats_tf.runtime.tensorflow import import_tensorflow

    import_tensorflow()
    from brats_tf.report.paper_figures import draw_figures, pick_case

    config = Config.load(given.run)
    cases = cases_to_score(given, [given.run], config)
    draw_figures(given.run, pick_case(cases, given.case, parts=config.data.modalities), given.checkpoint)


def compare(given):
    """Compare two evaluations, case by case.

    Paired differences, Wilcoxon's test and ranks as in BraTS: prints means, difference (second minus first) and p for
    each region and metric, and the mean rank over cases, regions, Dice and HD95 with a permutation test; writes
    RESULTS/comparison.json. Only cases that both have count.

    brats-tf compare results_b0 results_b7
    """
    from brats_tf.evaluation.compare import compare_results

    compare_results(given.first, given.second, results=given.results or Path(options.FOLDERS["results"]))


def package_submission(given):
    """Check and zip predictions for the BraTS platform.

    Checks names, shape 240x240x155, voxels of 1 mm and labels; with --data also that every case has a prediction with
    its affine. Each objection is a sentence; without any, the label maps are written to ARCHIVE.

    brats-tf package-submission predictions --data BraTS2020_ValidationData
    """
    from brats_tf.data.discovery import find_cases
    from brats_tf.evaluation.submission import package_submission as package

    cases, skipped = find_cases(given.data) if given.data else (None, ())
    return FAILED_CASES if package(given.predictions, given.archive, cases=cases, skipped=skipped) else 0


def _cases(given):
    """The cases to score; synthetic ones need the crop of the networks."""
    runs = runs_given(given)
    return cases_to_score(given, runs, Config.load(runs[0]) if given.phantoms else None)


def _predict_options(parser):
    options.add_selection(parser)
    add_checkpoint(parser)
    options.add_folder(parser, "out", "folder of the predictions")
    options.add_settings(parser, PostProcessing)
    parser.add_argument(
        "--tuned", action="store_true", help="take --drop-et-below-ml from `brats-tf tune-postprocessing`"
    )
    options.add_settings(parser, PredictionExtras)


def _evaluate_options(parser):
    options.add_selection(parser)
    options.add_folder(parser, "out", "folder of the predictions")
    options.add_folder(parser, "results", "folder of the scores")
    options.add_settings(parser, EvaluationOptions)


def _report_options(parser):
    options.add_selection(parser)
    options.add_folder(parser, "out", "folder of the predictions")
    options.add_folder(parser, "results", "folder of the scores and of the report")
    options.add_settings(parser, ReportOptions)


def _tune_options(parser):
    options.add_selection(parser)
    options.add_folder(parser, "out", "folder of the predictions")


def _figures_options(parser):
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a trained network, such as runs/flair")
    options.add_data(parser)
    parser.add_argument(
        "--case", metavar="ID", help="which case (default: the first that has the network's modalities)"
    )
    parser.add_argument("--cases", choices=("all", "validation"), default="all", help="which cases to choose from")
    add_checkpoint(parser)


def _compare_options(parser):
    parser.add_argument("first", type=Path, metavar="FIRST", help="a folder that `brats-tf evaluate` wrote")
    parser.add_argument("second", type=Path, metavar="SECOND", help="another one")
    options.add_folder(parser, "results", "folder of the comparison")


def _package_options(parser):
    default = Path(options.FOLDERS["out"])
    parser.add_argument("predictions", nargs="?", type=Path, metavar="PREDICTIONS", default=default)
    parser.add_argument("--data", type=Path, metavar="DATA", help="the cases that need a prediction")
    parser.add_argument(
        "--archive", type=Path, metavar="ZIP", default=Path("submission.zip"), help="default: submission.zip"
    )


COMMANDS = (
    Command("predict", predict, _predict_options),
    Command("evaluate", evaluate, _evaluate_options),
    Command("report", report, _report_options),
    Command("compare", compare, _compare_options),
    Command("tune-postprocessing", tune_postprocessing, _tune_options),
    Command("paper-figures", paper_figures, _figures_options),
    Command("package-submission", package_submission, _package_options),
)
