"""The commands that score label maps, report, compare, tune and package them; see `commands`."""

from pathlib import Path

from brats_tf.cli import options
from brats_tf.cli.arguments import engine_given, section_given
from brats_tf.cli.commands import FAILED_CASES, Command
from brats_tf.config.execution import EngineOptions, EvaluationOptions, ReportOptions
from brats_tf.errors import InputError


def evaluate(given):
    """Score label maps: Dice, HD95, sensitivity and more.

    Takes the folder that predict wrote, and knows from its prediction.json which cases it is of; --truth names them
    for other label maps, <case>.nii.gz, as any program writes them, and may be a folder of segmentations alone. Writes
    cases.csv and summary.json into PREDICTIONS/results, and prints the papers' tables. A region empty in truth and
    prediction scores Dice 1 and HD95 0, empty in one of them 0 and 373.13 mm, as on the BraTS platform; with
    --empty-masks nan it has no score where both are empty, and no distance where one is. Lesion-wise scores follow
    BraTS 2023. With --blind-classifier the networks predict once more, into PREDICTIONS/blinded, with classifiers that
    see nothing of the case; classifier.json and the report compare.

    brats-tf evaluate predictions
    brats-tf evaluate nnunet_output --truth BraTS2020/labels
    """
    from brats_tf.cli.predictions import cases_to_score, convention_given, results_given, runs_of
    from brats_tf.evaluation.evaluate import evaluate as score
    from brats_tf.evaluation.evaluate import show_table
    from brats_tf.evaluation.label_maps import LabelMaps
    from brats_tf.runtime.ray_pool import ray_executor

    if given.runs and not given.blind_classifier:
        raise InputError(f"--runs is for --blind-classifier. Received: --runs {given.runs} without it.")
    maps = LabelMaps(given.predictions)
    folders = {"predictions": given.predictions, "results": results_given(given)}
    cases, scoring = cases_to_score(given, maps), section_given(given, EvaluationOptions)
    runs = runs_of(given, maps) if scoring.blind_classifier else []
    engine, how = engine_given(given), {"options": scoring, "convention": convention_given(given)}
    with ray_executor(engine.engine, engine.address, scoring.workers) as executor:
        summary, failures = score(cases, **folders, **how, executor=executor)
    show_table({given.predictions.resolve().name: summary})
    if scoring.blind_classifier:
        from brats_tf.runtime.tensorflow import import_tensorflow

        import_tensorflow()
        from brats_tf.evaluation.contribution import classifier_contribution

        blinded = classifier_contribution(
            cases,
            runs=runs,
            **folders,
            empty=scoring.empty_masks,
            convention=convention_given(given),
        )
        failures = failures or blinded["left_out"]
    return FAILED_CASES if failures else 0


def report(given):
    """Write an HTML report of predictions and scores.

    Run it after evaluate, with the same folder: PREDICTIONS/results/report.html is one self-contained file with scores
    and intervals beside the paper's, distributions, slices to scroll through, worst and best cases, a sortable table,
    training curves, uncertainty, settings and hashes.

    brats-tf report predictions
    """
    from brats_tf.runtime.tensorflow import import_tensorflow

    import_tensorflow()
    from brats_tf.cli.predictions import cases_to_score, convention_given, results_given, runs_of
    from brats_tf.evaluation.label_maps import LabelMaps
    from brats_tf.report.report import write_report

    maps = LabelMaps(given.predictions)
    _, unshown = write_report(
        cases_to_score(given, maps),
        runs=runs_of(given, maps),
        predictions=given.predictions,
        results=results_given(given),
        options=section_given(given, ReportOptions),
        convention=convention_given(given),
    )
    return FAILED_CASES if unshown else 0


def tune_postprocessing(given):
    """Find the best volume for --drop-et-below-ml.

    Takes a folder that was predicted without --drop-et-below-ml from cases that no network was trained on, and the
    truth of those; writes postprocessing.json into the folder of each network, for `predict --tuned`.

    Of a cross-validation, it takes the folders of all folds: the volume is then the best of all their cases, for all
    networks averaged, and it says what the cases of each fold score with the volume of the others.

    brats-tf predict BraTS2020 --cases validation --out tuning
    brats-tf tune-postprocessing tuning
    brats-tf predict BraTS2020_ValidationData --tuned
    """
    from brats_tf.cli.predictions import cases_to_score, convention_given, runs_of
    from brats_tf.evaluation.label_maps import LabelMaps
    from brats_tf.evaluation.tune import Fold
    from brats_tf.evaluation.tune import tune_postprocessing as tune

    folds, found = [], {}
    for folder in given.folders or [Path(options.FOLDERS["out"])]:
        maps = LabelMaps(folder, convention_given(given))
        runs = runs_of(given, maps)
        if not runs:
            raise InputError(f"Tuning belongs to networks. Received: {folder}, without a record of any.")
        folds.append(Fold(maps, cases_to_score(given, maps, found), runs))
    return FAILED_CASES if tune(folds) else 0


def compare(given):
    """Compare two evaluations, case by case.

    Paired differences, Wilcoxon's test and ranks as in BraTS: prints means, difference (second minus first) and p for
    each region and metric, and the mean rank over cases, regions, Dice and HD95 with a permutation test; writes
    RESULTS/comparison.json. Only cases that both have count.

    FIRST and SECOND are what evaluate scored, of this package or of any other, or the folders of their scores.

    brats-tf compare predictions_b0 predictions_b7
    """
    from brats_tf.evaluation.compare import compare_results, scores_of

    name = options.FOLDERS["results"]
    folders = (scores_of(path, name) for path in (given.first, given.second))
    compare_results(*folders, results=given.results or Path(name))


def pool(given):
    """Join the scores of several predictions, as of the folds of a cross-validation.

    Takes folders that evaluate scored, no case in two of them; writes cases.csv and summary.json of all cases together
    into RESULTS, and prints the papers' tables of each and of all. `compare` takes RESULTS. Exit code 2 says that cases
    were left out of all folders.

    brats-tf pool fold0 fold1 fold2 fold3 fold4 --results all_folds
    """
    from brats_tf.evaluation.compare import scores_of
    from brats_tf.evaluation.evaluate import show_table
    from brats_tf.evaluation.pool import pool_results

    folders = [scores_of(path, options.FOLDERS["results"]) for path in given.folders]
    pooled, summaries = pool_results(folders, results=given.results or Path(options.FOLDERS["results"]))
    names = [path.resolve().name for path in given.folders]
    if len({*names, "all"}) <= len(names):
        names = list(map(str, given.folders))
    titles = [*names, "all" if "all" not in names else "all together"]
    show_table(dict(zip(titles, [*summaries.values(), pooled], strict=True)))
    return FAILED_CASES if pooled["left_out"] else 0


def package_submission(given):
    """Check and zip predictions for the BraTS platform.

    Checks names, shape 240x240x155, voxels of 1 mm and labels, and that every case of the data that was predicted (or
    of --data) has a prediction with its affine. Each objection is a sentence; without any, the label maps are written
    to ARCHIVE.

    brats-tf package-submission predictions
    """
    from brats_tf.cli.predictions import cases_predicted
    from brats_tf.evaluation.label_maps import LabelMaps
    from brats_tf.evaluation.submission import package_submission as package

    maps = LabelMaps(given.predictions)
    cases, skipped = cases_predicted(given, maps, complete=True) if given.data or maps.record else (None, ())
    return FAILED_CASES if package(given.predictions, given.archive, cases=cases, skipped=skipped) else 0


def _evaluate_options(parser):
    options.add_predictions(parser)
    options.add_results(parser, "folder of the scores")
    options.add_runs_of_predictions(parser)
    options.add_settings(parser, EvaluationOptions)
    options.add_settings(parser, EngineOptions)


def _report_options(parser):
    options.add_predictions(parser)
    options.add_results(parser, "folder of the scores and of the report")
    options.add_runs_of_predictions(parser)
    options.add_settings(parser, ReportOptions)


def _tune_options(parser):
    parser.add_argument(
        "folders",
        nargs="*",
        type=options.parse_path,
        metavar="PREDICTIONS",
        help=f"folders that `brats-tf predict` wrote (default: {options.FOLDERS['out']})",
    )
    options.add_truth(parser)
    options.add_runs_of_predictions(parser)


def _compare_options(parser):
    parser.add_argument("first", type=options.parse_path, metavar="FIRST", help="predictions, or a folder of scores")
    parser.add_argument("second", type=options.parse_path, metavar="SECOND", help="others")
    options.add_folder(parser, "results", "folder of the comparison")


def _pool_options(parser):
    parser.add_argument(
        "folders", nargs="+", type=options.parse_path, metavar="FOLDER", help="predictions, or a folder of scores"
    )
    options.add_folder(parser, "results", "folder of the scores of all")


def _package_options(parser):
    options.add_predictions(parser, truth=False)
    parser.add_argument("--data", type=options.parse_path, metavar="DATA", help="the cases that need a prediction")
    parser.add_argument(
        "--archive",
        type=options.parse_path,
        metavar="ZIP",
        default=Path("submission.zip"),
        help="default: submission.zip",
    )


COMMANDS = (
    Command("evaluate", evaluate, _evaluate_options),
    Command("report", report, _report_options),
    Command("compare", compare, _compare_options),
    Command("pool", pool, _pool_options),
    Command("tune-postprocessing", tune_postprocessing, _tune_options),
    Command("package-submission", package_submission, _package_options),
)
