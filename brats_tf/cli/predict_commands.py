"""The commands that use trained networks on cases: predict, and the papers' figures; see `commands`."""

from brats_tf.cli import options
from brats_tf.cli.arguments import (
    cases_in,
    cases_to_predict,
    engine_given,
    folder,
    postprocessing_given,
    runs_given,
    section_given,
)
from brats_tf.cli.commands import FAILED_CASES, Command, add_checkpoint
from brats_tf.config.config import CONFIG_FILE, Config
from brats_tf.config.execution import ForwardOptions, PostProcessing, PredictionEngine, PredictionOptions
from brats_tf.errors import InputError


def predict(given):
    """Predict label maps with the averaged networks.

    Writes OUT/<case>.nii.gz with each case's own geometry and label convention. A case that lacks a modality is
    predicted from the others where a network fits them. OUT/prediction.json records data, networks, the steps after
    them (none by default), the SHA-256 of each label map and, for several networks, their uncertainty; evaluate,
    report, tune-postprocessing, paper-figures and package-submission then take OUT alone. Cases join those of the same
    networks and steps in OUT.

    brats-tf predict BraTS2020_ValidationData --out predictions
    brats-tf predict cohort --out predictions --engine ray --workers 4 --resume
    """
    from brats_tf.runtime.tensorflow import import_tensorflow

    import_tensorflow()
    from brats_tf.inference.ensemble import load_ensemble
    from brats_tf.inference.predict import check_possible, predict_cases
    from brats_tf.inference.recording import check_target, finished_in, still_wanted
    from brats_tf.inference.shards import Shard, agree_on_cases

    runs = runs_given(given)
    postprocessing = postprocessing_given(given, runs)
    engine = engine_given(given, PredictionEngine)
    if engine.engine == "ray":
        return _predict_on_ray(given, runs, postprocessing, engine)
    predictors = load_ensemble(runs, given.checkpoint, forward=section_given(given, ForwardOptions))
    cases, out = cases_to_predict(given, runs, predictors[0].config), folder(given, "out")
    data = given.data or cases[0].folder.parent  # That of the synthetic cases.
    if given.shard:
        check_possible(predictors, section_given(given, PredictionOptions))  # Before the folder is written to.
        shard = Shard(*given.shard)
        record = check_target(out, predictors, postprocessing)
        finished = finished_in(record, out, cases, section_given(given, PredictionOptions))
        cases = still_wanted(cases, agree_on_cases(out, [case.id for case in cases], finished), out)
        if not cases:
            return 0
        cases, out = shard.of(cases), shard.folder(out)
    failures = predict_cases(
        predictors,
        cases,
        out=out,
        postprocessing=postprocessing,
        options=section_given(given, PredictionOptions),
        data=data,
    )
    return FAILED_CASES if failures else 0


def _predict_on_ray(given, runs, postprocessing, engine):
    from brats_tf.inference.ray_prediction import Prediction, predict_on_ray

    if given.shard:
        raise InputError("--shard is for processes that know nothing of each other; --engine ray divides by itself.")
    cases = cases_to_predict(given, runs, Config.load(runs[0]))
    forward, written = section_given(given, ForwardOptions), section_given(given, PredictionOptions)
    data = given.data or cases[0].folder.parent
    prediction = Prediction(tuple(runs), given.checkpoint, forward, postprocessing, written, data)
    where = {"out": folder(given, "out"), "address": engine.address, "workers": engine.workers}
    return FAILED_CASES if predict_on_ray(cases, prediction, **where) else 0


def merge(given):
    """Join the predictions of all shards.

    Takes the folder that `predict --shard` wrote into, in as many processes as there are shards; afterwards it is what
    one process would have written. Exit code 2 says that cases were left out.

    brats-tf merge predictions
    """
    from brats_tf.inference.shards import merge_shards

    _, left_out = merge_shards(given.predictions)
    return FAILED_CASES if left_out else 0


def paper_figures(given):
    """Draw the papers' figures from trained networks.

    Takes the folder that predict wrote, and draws for each of its networks; or the folder of one run, and then DATA.
    Writes RUN/figures/overlay-<case>.png (the embedding paper's Figure 2, for that one network) and, for its networks,
    planes-<case>.png (its Figures 3 and 4).

    brats-tf paper-figures predictions --case BraTS20_Training_001
    brats-tf paper-figures runs/embedding-flair BraTS2020
    """
    from brats_tf.runtime.tensorflow import import_tensorflow

    import_tensorflow()
    from brats_tf.cli.predictions import cases_predicted, runs_of
    from brats_tf.evaluation.label_maps import LabelMaps
    from brats_tf.inference.prediction_record import check_weights
    from brats_tf.report.paper_figures import draw_figures, pick_case

    if (given.folder / CONFIG_FILE).is_file():
        if given.data is None:
            raise InputError(f"DATA is missing: name the cases to draw with {given.folder}.")
        chosen, cases = [(given.folder, given.checkpoint or "last")], cases_in(given.data)
    else:
        maps = LabelMaps(given.folder)
        if not maps.record:
            raise InputError(f"{given.folder} must be the folder of a run, or one that `brats-tf predict` wrote.")
        cases, _ = cases_predicted(given, maps, "DATA")
        checkpoints = [facts["checkpoint"] for facts in maps.record["checkpoints"].values()]
        if given.checkpoint and {given.checkpoint} != set(checkpoints):
            raise InputError(
                f"{given.folder} was predicted with --checkpoint {', '.join(sorted(set(checkpoints)))}. Received: "
                f"{given.checkpoint}; name a run and its cases instead."
            )
        chosen = list(zip(runs_of(given, maps), checkpoints, strict=True))
        check_weights(maps.record, [run for run, _ in chosen], given.folder)
    for run, checkpoint in chosen:
        parts = Config.load(run).data.modalities
        draw_figures(run, pick_case(cases, given.case, parts=parts), checkpoint)


def _predict_options(parser):
    options.add_selection(parser)
    add_checkpoint(parser)
    options.add_folder(parser, "out", "folder of the predictions")
    options.add_settings(parser, ForwardOptions)
    options.add_settings(parser, PostProcessing)
    options.add_tuned(parser)
    options.add_settings(parser, PredictionOptions)
    options.add_settings(parser, PredictionEngine)
    parser.add_argument(
        "--shard",
        type=options.parse_shard,
        metavar="K/N",
        help="predict the K-th of N parts of the cases, into OUT/shards; `brats-tf merge OUT` joins them",
    )


def _merge_options(parser):
    options.add_predictions(parser, truth=False)


def _figures_options(parser):
    parser.add_argument(
        "folder", type=options.parse_path, metavar="FOLDER", help="predictions, or a run, such as runs/embedding-flair"
    )
    parser.add_argument(
        "data", nargs="?", type=options.parse_path, metavar="DATA", help="cases (default: the data that was predicted)"
    )
    options.add_runs_of_predictions(parser)
    parser.add_argument(
        "--case", metavar="ID", help="which case (default: the first that has the network's modalities)"
    )
    add_checkpoint(parser, default=None, means="that of the predictions, last of a run")


COMMANDS = (
    Command("predict", predict, _predict_options),
    Command("merge", merge, _merge_options),
    Command("paper-figures", paper_figures, _figures_options),
)
