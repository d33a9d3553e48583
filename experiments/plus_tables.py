"""Tables of `embedding-plus` trained by the command on real cases."""

from results_files import REGIONS, interval, read, runs_of_folds, span

from brats_tf.errors import InputError, format_shape

# Rows of `plus_folds`, and the ends of their files' names.
FOLDS_SCORED = {"seed 1": "", "seed 2": "_two", "both averaged": "_both"}


def plus_on_cpu():
    """`embedding-plus` trained with `--minutes` on two cores at 2 mm, scored on other cases; mirrored, and blinded."""
    return _on_cpu("plus_on_cpu")


def plus_on_cpu_fine():
    """The same at 1.5 mm."""
    return _on_cpu("plus_on_cpu_fine")


def plus_two_seeds():
    """Two networks of other seeds, trained at once on a core each, and the average of both."""
    runs = [read(f"plus_two_seeds_run{number}") for number in (1, 2)]
    scores = {name: read(f"plus_two_seeds_{name}") for name in ("seed1", "seed2", "both", "plain")}
    alone = [scores[name]["made_by"]["networks"] for name in ("seed1", "seed2")]
    if any(scores[name]["made_by"]["networks"] != alone[0] | alone[1] for name in ("both", "plain")):
        raise InputError("plus_two_seeds_both and _plain must be of the networks of plus_two_seeds_seed1 and _seed2.")
    data, epochs = runs[0]["settings"]["data"], [run["epochs"] for run in runs]
    minutes = [f"{run['seconds'] / 60:.0f}" for run in runs]
    lines = [
        f"Measured on {runs[0]['machine']}, commit {runs[0]['git_commit']}: {runs[0]['cases']} training cases, "
        f"{format_shape(data['crop'])} at {data['spacing_mm']:g} mm, {_precision(runs[0])}, two networks at once, "
        f"a core each, {epochs[0]} and {epochs[1]} epochs in {minutes[0]} and {minutes[1]} minutes; "
        f"{scores['both']['cases']} other cases, whole files, `--mirror all --drop-et-below-ml 0.5`; Dice x 100.",
        "",
        "| | ET | WT | TC | all three |",
        "|---|--:|--:|--:|--:|",
    ]
    titles = {"seed1": f"seed {runs[0]['seed']}", "seed2": f"seed {runs[1]['seed']}", "both": "both averaged"}
    titles["plain"] = "both averaged without these options"
    for name, title in titles.items():
        lines.append(f"| {title}, mean with 95 % interval over cases | {' | '.join(_means(scores[name]))} |")
    medians = " | ".join(f"{100 * scores['both'][region]['dice']['median']:.1f}" for region in REGIONS)
    lines.append(f"| both averaged, median | {medians} |  |")
    blinded = read("plus_two_seeds_classifier")
    if blinded["made_by"]["networks"] != scores["both"]["made_by"]["networks"]:
        raise InputError("plus_two_seeds_classifier must be of the networks of plus_two_seeds_both.")
    differences = " | ".join(interval(blinded[region]["difference"]) for region in REGIONS)
    return [*lines, f"| both averaged, mean minus that of the blinded classifiers | {differences} |  |"]


def plus_folds():
    """Five folds by two seeds, and the scores of each case by the networks that did not see it."""
    runs, scores = runs_of_folds(), {name: read(f"plus_folds{end}") for name, end in FOLDS_SCORED.items()}
    data = runs[0]["settings"]["data"]
    cases, epochs = (span([run[name] for run in runs]) for name in ("cases", "epochs"))
    minutes = span([run["seconds"] / 60 for run in runs])
    both = scores["both averaged"]
    medians = " | ".join(f"{100 * both[region]['dice']['median']:.1f}" for region in REGIONS)
    distances = " | ".join(f"{both[region]['hd95_mm']['median']:.1f}" for region in REGIONS)
    return [
        f"Measured on {runs[0]['machine']}, commits {' and '.join(dict.fromkeys(run['git_commit'] for run in runs))}: "
        f"five networks of each of two seeds, each trained on {cases} cases, {format_shape(data['crop'])} at "
        f"{data['spacing_mm']:g} mm, {_precision(runs[0])}, {epochs} epochs in {minutes} minutes on one core; "
        f"{both['cases']} cases, whole files, each predicted by the network of each seed that did not see it, "
        "`--mirror all --drop-et-below-ml 0.5`; Dice x 100.",
        "",
        "| | ET | WT | TC | all three |",
        "|---|--:|--:|--:|--:|",
        *(
            f"| {name}, mean with 95 % interval over cases | {' | '.join(_means(its))} |"
            for name, its in scores.items()
        ),
        f"| both averaged, median | {medians} |  |",
        f"| both averaged, median HD95, mm | {distances} |  |",
    ]


def _on_cpu(name):
    run, scores, averaged = read(f"{name}_run"), read(name), read(f"{name}_averaged")
    data, blinded = run["settings"]["data"], read(f"{name}_classifier")
    networks = [one.get("made_by", one)["networks"] for one in (scores, averaged, blinded)]
    if networks.count(networks[0]) < len(networks):
        raise InputError(f"The files of {name} must be of one network. Received those of {networks}.")
    size = format_shape(data["crop"])
    lines = [
        f"Measured on {run['machine']}, commit {run['git_commit']}: {run['cases']} training cases, {size} at "
        f"{data['spacing_mm']:g} mm, {_precision(run)}, {run['epochs']} epochs in {run['seconds'] / 60:.0f} minutes, "
        f"{run['peak_memory_gb']:.1f} GB; {scores['cases']} other cases, whole files.",
        "",
        "| | ET | WT | TC | all three |",
        "|---|--:|--:|--:|--:|",
    ]
    rows = {}
    for title, its in (("", scores), (" with `--mirror all --drop-et-below-ml 0.5`", averaged)):
        dice = [its[region]["dice"] for region in REGIONS]
        rows[f"mean Dice x 100{title}, 95 % interval over cases"] = _means(its)
        rows[f"median Dice x 100{title}"] = [*(f"{one['median'] * 100:.1f}" for one in dice), ""]
    rows["median HD95, mm"] = [*(f"{scores[region]['hd95_mm']['median']:.1f}" for region in REGIONS), ""]
    rows["mean minus that of the blinded classifier"] = [
        *(interval(blinded[region]["difference"]) for region in REGIONS),
        "",
    ]
    return lines + [f"| {name} | {' | '.join(values)} |" for name, values in rows.items()]


def _means(summary):
    """The cells of a summary: mean Dice x 100 of each region with its interval, and that of all three."""
    dice = [summary[region]["dice"] for region in REGIONS]
    return [*map(interval, dice), f"{100 * sum(one['mean'] for one in dice) / len(dice):.1f}"]


def _precision(run):
    return run["settings"]["compute"]["precision"]
