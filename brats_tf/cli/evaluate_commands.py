"""The commands of `brats-tf` that look at predictions; see `commands`."""

from brats_tf.cli.arguments import cases_of, networks_given, scored_cases
from brats_tf.cli.train_commands import FAILED_CASES
from brats_tf.config.settings import Config


def tune(given):
    """Find the volume of enhancing tumour below which dropping it scores best, on cases that training has not seen.

    Reads OUT/<case>.nii.gz, predicted by the same networks with the same other steps but without --drop-et-below-ml,
    and the truth; writes postprocessing.json into the folder of each network. Cases that trained a network are refused.

    brats-tf predict --data BraTS2020 --held-out --out tuning
    brats-tf tune --data BraTS2020 --held-out --out tuning
    brats-tf predict --data BraTS2020_validation --drop-et-below-ml tuned
    """
    from brats_tf.evaluation.evaluate import tune as find

    runs = [given.runs / name for name in networks_given(given)]
    config = Config.load(runs[0])
    failures = find(scored_cases(given, config), predictions=given.out, runs=runs)
    return FAILED_CASES if failures else 0


def evaluate(given):
    """Score label maps against the truth: Dice, HD95, sensitivity, specificity and more, for ET, WT and TC.

    Writes RESULTS/cases.csv and RESULTS/summary.json, and prints the papers' tables. A region empty in truth and
    prediction scores Dice 1 and HD95 0, empty in one of them 0 and 373.13 mm, as on the BraTS platform; with `--empty
    nan` only Dice of one empty mask counts, as 0. Lesion-wise scores follow BraTS 2023.

    brats-tf evaluate --data BraTS2020 --out predictions --results results
    """
    from brats_tf.evaluation.evaluate import evaluate as score
    from brats_tf.evaluation.evaluate import show_table

    config = None if given.data else Config.load(given.runs / networks_given(given)[0])
    cases = scored_cases(given, config)
    summary, failures = score(
        cases, predictions=given.out, results=given.results, empty=given.empty, workers=given.workers
    )
    show_table({"ours": summary})
    return FAILED_CASES if failures else 0


def report(given):
    """Write RESULTS/report.html: everything about the predictions in one file that opens without network.

    After predict and evaluate, with the same arguments: scores with intervals beside the paper's, distributions, slices
    to scroll through, worst and best cases, a table that sorts, training curves, disagreement, settings and hashes.

    brats-tf report --data BraTS2020 --held-out
    """
    from brats_tf.report.report import write_report

    runs = [given.runs / name for name in networks_given(given)]
    config = None if given.data else Config.load(runs[0])
    cases = scored_cases(given, config)
    write_report(cases, runs=runs, predictions=given.out, results=given.results, slices=given.slices)


def figures(given):
    """Draw the paper's figures from a trained run: overlay, and the planes between its 2D and 3D halves.

    Writes RUN/figures/overlay-<case>.png (paper A's Figure 2, for this one network) and, for paper A's networks,
    planes-<case>.png (its Figures 3 and 4). --held-out takes a case that training has not seen.

    brats-tf figures --run runs/flair --data BraTS2020 --case BraTS20_Training_001
    """
    from brats_tf.runtime.console import import_tensorflow

    import_tensorflow()
    from brats_tf.data.splits import held_out_cases
    from brats_tf.report.paper_figures import draw_figures, pick_case

    config = Config.load(given.run)
    found = cases_of(given, "unseen", config)
    found = held_out_cases(found, [given.run]) if given.held_out else found
    draw_figures(given.run, pick_case(found, given.case, parts=config.modalities))


def compare(given):
    """Compare two folders that `evaluate` wrote: paired differences, Wilcoxon's test, ranks as in BraTS.

    Prints means, difference (second minus first) and p for each region and metric, and the mean rank over cases,
    regions, Dice and HD95 with a permutation test; writes RESULTS/comparison.json. Only cases that both have count.

    brats-tf compare results_b0 results_b7
    """
    from brats_tf.evaluation.compare import compare as paired

    paired(given.first, given.second, results=given.results)


def submit(given):
    """Check a folder of predictions for what the BraTS platform asks, and zip it.

    Names, shape 240x240x155, voxels of 1 mm, labels; with --data also that every case is there and has its case's
    affine. Each objection is a sentence, and without any the label maps are written into ARCHIVE.

    brats-tf submit --data BraTS2020_ValidationData --out predictions --archive submission.zip
    """
    from brats_tf.data.discovery import find_cases
    from brats_tf.evaluation.submission import submit as check_and_zip

    cases, skipped = find_cases(given.data) if given.data else (None, ())
    return FAILED_CASES if check_and_zip(given.out, given.archive, cases=cases, skipped=skipped) else 0
