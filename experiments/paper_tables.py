"""Tables of the papers' networks: results, one case, planes and the classifier behind them."""

from results_files import FOLDER, REGIONS, interval, papers, read, read_measured, runs_of_folds, span, three

# Of `classifier_contribution.py`; the heads of the tables say how the others were trained.
TRAINED_OTHERWISE = {"authors": "`authors`, four modalities at 64x64x48, Nadam"}


def results():
    """The embedding paper's rows and ours: mean, standard deviation and median Dice x 100."""
    lines = ["| Dice × 100 (mean ± std, median) | cases | ET | WT | TC |", "|---|--:|--:|--:|--:|"]
    rows = list(papers()["embedding"].items())
    rows += [
        ("ours: synthetic cases at 64x64x36, `make demo`, before training", read("demo_untrained")),
        ("ours: synthetic cases at 64x64x36, `make demo`", read("demo")),
        (_on_real_cases(), read("plus_folds_both")),
    ]
    for title, summary in rows:
        if summary.get("made_by", {}).get("initial_weights", ["unknown"]) not in ([], ["unknown"]):
            title += f"; {' and '.join(summary['made_by']['initial_weights'])}"
        scores = [summary[region]["dice"] for region in REGIONS]
        cells = [f"{100 * s['mean']:.2f} ± {100 * s['std']:.2f}, {100 * s['median']:.2f}" for s in scores]
        lines.append(f"| {title} | {scores[0]['n']} | {' | '.join(cells)} |")
    return lines


def _on_real_cases():
    """The title of the row of `embedding-plus` on real cases."""
    runs = runs_of_folds()
    cases, minutes = span([run["cases"] for run in runs]), span([run["seconds"] / 60 for run in runs])
    return (
        "ours: real cases, not those of BraTS's validation, each predicted by two networks of `embedding-plus` that "
        f"did not see it, averaged, at {runs[0]['settings']['data']['spacing_mm']:g} mm, mirrored volumes averaged, ET "
        f"below 0.5 ml dropped, each trained on {cases} others for {minutes} minutes on a CPU core"
    )


def overfit():
    """The case learned by heart."""
    run = read("overfit_one_case")
    dice = " | ".join(f"{run['dice'][region]:.3f}" for region in REGIONS)
    return [
        "| case | device | steps | seconds | ET | WT | TC | live planes | WT / TC / ET blinded |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
        f"| {run['case']} | {run['device']} | {run['steps']} | {run['seconds']:.0f} | {dice} | {run['planes_live']:g} "
        f"| {three(run['blinded'])} |",
    ]


def scaling():
    """The hidden input scaling: what it does to the first convolution and to the gradient."""
    run = read("scaling_and_batch_norm")
    lines = [
        "| seed | input scaling | variance, first convolution | gradient, 3D encoder | gradient, its last block |",
        "|--:|---|--:|--:|--:|",
    ]
    for row in run["scaling"]:
        figures = " | ".join(f"{row[name]:.3g}" for name in ("variance", "encoder_gradient", "last_gradient"))
        lines.append(f"| {row['seed']} | `{row['input_scaling']}` | {figures} |")
    return lines


def batch_norm():
    """Frozen or batch statistics: Dice of the same weights in prediction and in training mode."""
    run = read("scaling_and_batch_norm")
    lines = [
        f"{run['case']}, {run['steps']} steps; Dice WT / TC / ET.",
        "",
        "| seed | batch norm | prediction mode | training mode | live planes | blinded, prediction mode |",
        "|--:|---|--:|--:|--:|--:|",
    ]
    for row in run["batch_norm"]:
        modes = " | ".join(three(row[mode]) for mode in ("prediction", "training"))
        lines.append(
            f"| {row['seed']} | `{row['batch_norm']}` | {modes} | {row['planes_live']:g} | {three(row['blinded'])} |"
        )
    return lines


def planes():
    """The planes over the first steps at full size: FLAIR and T1ce, one row for each seed."""
    lines = [
        "| modality | seed | not 0 | deviation, steps 1, 10, 20 … | least, of start | least gradient | loss |",
        "|---|--:|--:|---|--:|--:|--:|",
    ]
    for modality in ("flair", "t1ce"):
        if not (FOLDER / "results" / f"living_planes-{modality}.json").is_file():
            continue
        for one in read_measured(f"living_planes-{modality}")["runs"]:
            lines.append(_planes_row(modality, one))
    return lines


def _planes_row(modality, one):
    deviation = one["planes_std"]
    every = [deviation[0], *deviation[9::10]]
    return (
        f"| {modality} | {one['seed']} | {100 * min(one['planes_live']):.0f} % | "
        f"{' '.join(f'{value:.2g}' for value in every)} | {min(deviation) / deviation[0]:.2f} | "
        f"{min(one['squeeze_gradient']):.2g} | {_tail(one['loss']):.3f} |"
    )


def _tail(values):
    last = values[-max(1, len(values) // 5) :]
    return sum(last) / len(last)


def contribution():
    """Normal and blinded Dice, by variant."""
    return _contribution("variants", lambda row: True)


def contribution_gpu():
    """The same of longer trainings on a GPU, of the networks that see FLAIR."""
    return _contribution("gpu", lambda row: row["networks"] == "flair")


def _contribution(name, wanted):
    run = read_measured(f"classifier_contribution-{name}")
    lines = [
        f"{_trained_so(run)}; Dice x 100.",
        "",
        "| network | seeds | planes not 0 in the worst seed | region | normal | blinded | difference (95 % interval) |",
        "|---|--:|--:|---|--:|--:|--:|",
    ]
    for row in filter(wanted, run["rows"]):
        for region in ("WT", "TC", "ET"):
            dice = row["dice"][region]
            trained = TRAINED_OTHERWISE.get(row["variant"], f"`{row['variant']}`")
            start = f"| {trained} | {len(row['seeds'])} | {100 * row['planes_live']:.0f} % | {region}"
            figures = " | ".join(f"{100 * dice[kind]['mean']:.1f}" for kind in ("normal", "blinded"))
            lines.append(f"{start} | {figures} | {interval(dice['difference'])} |")
    return lines


def pretraining():
    """Differences between variants: ImageNet's weights, random ones, the authors' preset, B7."""
    lines = ["| epochs | first | second | seeds | ET | WT | TC |", "|--:|---|---|--:|--:|--:|--:|"]
    for name in ("variants", "gpu"):
        run = read_measured(f"classifier_contribution-{name}")
        for one in run["differences"]:
            (first, its), (second, others) = one["first"], one["second"]
            if first != second and its == others:
                figures = " | ".join(interval(one["dice"][region]) for region in REGIONS)
                lines.append(f"| {run['epochs']} | `{first}` | `{second}` | {len(one['seeds'])} | {figures} |")
    return lines


def modalities():
    """Each one-modality network, and the average of four."""
    run = read_measured("classifier_contribution-gpu")
    lines = [f"{_trained_so(run)}; Dice x 100.", "", "| networks | seeds | ET | WT | TC |", "|---|--:|--:|--:|--:|"]
    for row in run["rows"]:
        if row["variant"] == "imagenet":
            figures = " | ".join(interval(row["dice"][region]["normal"]) for region in REGIONS)
            lines.append(f"| {row['networks']} | {len(row['seeds'])} | {figures} |")
    return lines


def _trained_so(run):
    return (
        f"{run['cases']} training cases, {len(run['validation_cases'])} others predicted; {run['crop']} at "
        f"{run['spacing_mm']:g} mm, {run['epochs']} epochs, Adam {run['learning_rate']:g}, "
        f"{run['precision']}, {run['machine']}"
    )


def albunet():
    """The AlbuNet paper's Table 1, the paper's rows and ours."""
    run = read("albunet_table1")
    columns = " | ".join(f"{metric}, {region}" for metric in ("Dice", "HD95 mm") for region in REGIONS)
    lines = [f"| mean (median) | {columns} |", f"|---|{'--:|' * 6}"]
    ours = (
        f"ours, {run['length']}: {run['seeds']} runs, {run['cases']['training']} cases, "
        f"{run['cases']['validation']} validated"
    )
    rows = {f"the paper: {method}": row for method, row in papers()["albunet"].items()}
    rows |= {f"{method} ({ours})": row for method, row in run["table"].items()}
    for title, row in rows.items():
        cells = [
            f"{row[region][metric]['mean']:.{digits}f} ({row[region][metric]['median']:.{digits}f})"
            for metric, digits in (("dice", 4), ("hd95_mm", 1))
            for region in REGIONS
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines
