"""Writes the tables of the pages from experiments/results, or checks them, or publishes new results.

Command:  python experiments/tables.py                     (writes)
          python experiments/tables.py --check             (exit code 1 when a page does not say what the files say)
          python experiments/tables.py --publish RESULTS   (copies what commands wrote into RESULTS, then writes)
"""

import json
import re
import shutil
import statistics
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
REPOSITORY = FOLDER.parent
PAGES = (
    REPOSITORY / "README.md",
    FOLDER / "README.md",
    REPOSITORY / "docs" / "how-to" / "save-memory.md",
    REPOSITORY / "docs" / "explanation" / "scaling-and-batch-norm.md",
    REPOSITORY / "docs" / "explanation" / "planes.md",
    REPOSITORY / "docs" / "explanation" / "plus.md",
    REPOSITORY / "docs" / "explanation" / "exact-normalisation.md",
    REPOSITORY / "docs" / "how-to" / "from-the-scanner.md",
    REPOSITORY / "docs" / "how-to" / "export.md",
    REPOSITORY / "docs" / "how-to" / "serve.md",
    REPOSITORY / "docs" / "how-to" / "predict-a-cohort.md",
)
PAPERS = REPOSITORY / "brats_tf" / "report" / "published_results.json"
# What lies in a results folder, and where it is published.
PUBLISHED = {
    "summary.json": "experiments/results/demo.json",
    "untrained/summary.json": "experiments/results/demo_untrained.json",
    "bench.json": "experiments/results/bench.json",
    "bench_training-float32.json": "experiments/results/bench_training-float32.json",
    "bench_training-plus.json": "experiments/results/bench_training-plus.json",
    "bench_comparison.json": "experiments/results/bench_comparison.json",
    "bench_comparison-float32.json": "experiments/results/bench_comparison-float32.json",
    "bench_data.json": "experiments/results/bench_data.json",
    "bench_growth.json": "experiments/results/bench_growth.json",
    "bench_training.json": "experiments/results/bench_training.json",
    "bench_windows.json": "experiments/results/bench_windows.json",
    "backbones.json": "brats_tf/models/backbones.json",
    "overfit_one_case/summary.json": "experiments/results/overfit_one_case.json",
    "scaling_and_batch_norm/summary.json": "experiments/results/scaling_and_batch_norm.json",
    **{
        f"living_planes-{name}.json": f"experiments/results/living_planes-{name}.json"
        for name in ("flair", "t1ce", "small")
    },
    **{
        f"classifier_contribution-{name}.json": f"experiments/results/classifier_contribution-{name}.json"
        for name in ("variants", "gpu")
    },
    "scaling_and_batch_norm/figure.png": "experiments/results/scaling_and_batch_norm.png",
    "real_cases.json": "experiments/results/real_cases.json",
    "real_cases-2mm.json": "experiments/results/real_cases-2mm.json",
    "exact_normalisation.json": "experiments/results/exact_normalisation.json",
    "exact_biases.json": "experiments/results/exact_biases.json",
    **{
        f"{name}/{file}.json": f"experiments/results/{name}{end}.json"
        for name in ("plus_on_cpu", "plus_on_cpu_fine")
        for file, end in {"run": "_run", "summary": "", "averaged": "_averaged", "classifier": "_classifier"}.items()
    },
    "cohort_on_ray.json": "experiments/results/cohort_on_ray.json",
    "serve_load.json": "experiments/results/serve_load.json",
    "runtimes.json": "experiments/results/runtimes.json",
    "round_trip.json": "experiments/results/round_trip.json",
    "registration_tools.json": "experiments/results/registration_tools.json",
    "albunet_table1/summary.json": "experiments/results/albunet_table1.json",
    "albunet_table1/curves.png": "experiments/results/albunet_curves.png",
    "albunet_table1/boxplot.png": "experiments/results/albunet_boxplot.png",
}
OLD_NAMES = {"paper": "embedding", "plus": "nnunet-like"}  # Of presets, in files that earlier versions wrote.
RUNTIMES = {"savedmodel": "TensorFlow's SavedModel", "onnx": "ONNX Runtime", "litert": "LiteRT"}
RUNTIMES |= {"tensorflow": "TensorFlow", "onnxruntime": "ONNX Runtime", "ai-edge-litert": "LiteRT"}
REGIONS = ("ET", "WT", "TC")
REGISTERED = ("flair", "t1", "t2")  # To T1ce.
MODALITIES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}


def read_measured(name):
    """The content of a results file that says where it is from: commit, versions, the weights' origin and hash."""
    run = read(name)
    missing = [key for key in ("commit", "versions", "machine", "runs") if not run.get(key)]
    missing += [key for key in ("weights", "classifier_sha256") for one in run.get("runs", []) if not one.get(key)]
    if missing:
        raise SystemExit(f"{name}.json lacks {', '.join(sorted(set(missing)))}; measure it again with its command.")
    return run


def read(name):
    """The content of one results file."""
    path = FOLDER / "results" / f"{name}.json"
    if not path.is_file():
        raise SystemExit(f"{path} is not there; README.md beside it says which command writes it.")
    return json.loads(path.read_text())


def papers():
    """The papers' results, typed from their tables: {"embedding", "albunet": {row: {region: {metric: figures}}}}."""
    return json.loads(PAPERS.read_text())


def results():
    """The embedding paper's rows and ours: mean, standard deviation and median Dice x 100."""
    lines = ["| Dice × 100 (mean ± std, median) | cases | ET | WT | TC |", "|---|--:|--:|--:|--:|"]
    rows = list(papers()["embedding"].items())
    rows += [
        ("ours: synthetic cases at 64x64x36, `make demo`, before training", read("demo_untrained")),
        ("ours: synthetic cases at 64x64x36, `make demo`", read("demo")),
        (_on_real_cases(), read("plus_on_cpu_fine")),
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
    run = read("plus_on_cpu_fine_run")
    return (
        "ours: real cases, not those of BraTS's validation, `embedding-plus` at "
        f"{run['settings']['data']['spacing_mm']:g} mm, trained on {run['cases']} others for {run['seconds'] / 60:.0f} "
        "minutes on two CPU cores"
    )


def three(dice):
    """Dice of the regions, largest first, as one cell."""
    return " / ".join(f"{dice[region]:.3f}" for region in ("WT", "TC", "ET"))


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


def bench():
    """What a pass and a step cost, with the smallest and with the largest EfficientNet."""
    runs = [read("bench"), read("bench_efficientnetb7")]
    same = [{key: run[key] for key in ("machine", "preset", "crop")} for run in runs]
    if same[0] != same[1]:
        raise SystemExit(f"The two runs of the bench must be of one machine, preset and crop. Received: {same}.")
    crop = "x".join(str(size) for size in runs[0]["crop"])
    rows = {
        "one pass": lambda run: f"{run['gflop']:.0f} GFLOP",
        "prediction": lambda run: f"{run['forward_s']:.1f} s, {run['forward_peak_gb']:.1f} GB",
        "training step": lambda run: f"{run['step_s']:.1f} s, {run['step_peak_gb']:.1f} GB",
        "matrix product of the machine, same run": lambda run: f"{run['matrix_gflops']:.0f} GFLOP/s",
        "share of it that prediction reaches": lambda run: f"{100 * run['share_of_matrix_rate']:.0f} %",
    }
    return [
        f"Measured on {runs[0]['machine']}, preset `{_current(runs[0]['preset'])}`, {crop}, float32, one modality.",
        "",
        f"| | {' | '.join(run['backbone'] for run in runs)} |",
        f"|---|{'--:|' * len(runs)}",
        *(f"| {name} | {' | '.join(show(run) for run in runs)} |" for name, show in rows.items()),
    ]


def comparison():
    """Our passes and steps, and files to label maps, beside other systems'."""
    return _comparison("bench_comparison")


def comparison_float32():
    """The same on a processor without bfloat16."""
    return _comparison("bench_comparison-float32")


def _comparison(name):
    run = read(name)
    crop = "x".join(str(size) for size in run["crop"])
    lines = [
        f"Measured on {run['machine']}{', which computes in bfloat16' if run['bfloat16'] else ''}, commit "
        f"{run['commit']}, in one run; `embedding` at {crop}, one modality a network; {run['case']}.",
        "",
        "| | precision | seconds | ratio | GFLOP | of the float32 matrix rate | peak memory |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for row in run["rows"]:
        cells = [f"{row['seconds']:.2f}", f"{row['ratio']:.2f}" if "ratio" in row else ""]
        known = "gflop" in row
        cells += [f"{row['gflop']:.0f}", f"{100 * row['share_of_matrix_rate']:.0f} %"] if known else ["", ""]
        cells += [f"{row['peak_gb']:.1f} GB" if "peak_gb" in row else ""]
        lines.append(f"| {row['what']} | `{row['precision']}` | {' | '.join(cells)} |")
    return lines


def growth():
    """Seconds and memory over the number of cases."""
    run = read("bench_growth")
    crop = "x".join(str(size) for size in run["crop"])
    return [
        f"Measured on {run['machine']}, commit {run['commit']}, in one run; networks at {crop}.",
        "",
        "| | cases | seconds a case | peak memory |",
        "|---|--:|--:|--:|",
        *(
            f"| {row['what']} | {row['cases']} | {row['seconds']:.2f} | {row['peak_gb']:.2f} GB |"
            for row in sorted(run["rows"], key=lambda row: row["what"])
        ),
    ]


def data():
    """Preparation, streaming and memory."""
    run = read("bench_data")
    crop = "x".join(str(size) for size in run["crop"])
    speedup, gunzip = run["two_workers_speedup"], run["gunzip_speedup"]
    step, in_memory, ratio = 1000 * run["step_with_stream_s"], 1000 * run["step_in_memory_s"], run["stream_ratio"]
    rows = {
        "preparing a case (four modalities and truth), one worker": f"{run['prepare_s']:.2f} s",
        "share of it that is gunzip": f"{100 * run['gunzip_share']:.0f} %",
        "preparing a case, two workers": f"{run['two_workers_s']:.2f} s",
        "speed-up by the second worker; of gunzip alone": f"{speedup:.2f}; {gunzip:.2f}",
        "full crops a second from a warm store": f"{run['crops_per_s']:.0f}",
        "training step of a small network on one batch in memory": f"{in_memory:.0f} ms",
        "the same with the stream": f"{step:.0f} ms, {ratio:.3f} times as long",
    }
    for preset, memory in run["memory"].items():
        first, *_, last = memory["gb"]
        growth = f"{first:.2f} GB, {last:.2f} GB: {100 * memory['growth']:+.1f} %"
        rows[f"memory after 100 and after 1,000 steps, augmentation `{_current(preset)}`"] = growth
    return [
        f"Measured on {run['machine']}, {run['cases']} cases, {crop}, in one run.",
        "",
        "| | |",
        "|---|--:|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
    ]


def augmentation():
    """Each operation beside the same one of other libraries."""
    run = read("bench_data")
    libraries = list(dict.fromkeys(name for took in run["augmentation_ms"].values() for name in took))
    lines = [
        f"Measured on {run['machine']}, in one run; milliseconds.",
        "",
        f"| | {' | '.join(libraries)} |",
        f"|---|{'--:|' * len(libraries)}",
    ]
    for operation, took in run["augmentation_ms"].items():
        cells = (f"{took[name]:.3g}" if name in took else "–" for name in libraries)
        lines.append(f"| {operation.replace('_', ' ')} | {' | '.join(cells)} |")
    return lines


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


def planes_small():
    """Scalings and batch norms beside each other at reduced size."""
    run = read_measured("living_planes-small")
    lines = ["| scaling, batch norm | seed | deviation, least of its start | gradient, least | loss, last fifth |"]
    lines.append("|---|--:|--:|--:|--:|")
    for one in sorted(run["runs"], key=lambda one: (one["variant"], one["seed"])):
        deviation, loss = one["planes_std"], one["loss"]
        least = f"{min(deviation) / deviation[0]:.2f} | {min(one['squeeze_gradient']):.2g} | {_tail(loss):.3f}"
        lines.append(f"| `{one['variant'].replace('-', '`, `')}` | {one['seed']} | {least} |")
    return lines


def contribution():
    """Normal and blinded Dice, by variant."""
    return _contribution("variants", lambda row: True)


def contribution_gpu():
    """The same of longer trainings on a GPU, of the networks that see FLAIR."""
    return _contribution("gpu", lambda row: row["networks"] == "flair")


# Of `classifier_contribution.py`; the heads of the tables say how the others were trained.
TRAINED_OTHERWISE = {"authors": "`authors`, four modalities at 64x64x48, Nadam"}


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
            lines.append(f"{start} | {figures} | {_interval(dice['difference'])} |")
    return lines


def pretraining():
    """Differences between variants: ImageNet's weights, random ones, the authors' preset, B7."""
    lines = ["| epochs | first | second | seeds | ET | WT | TC |", "|--:|---|---|--:|--:|--:|--:|"]
    for name in ("variants", "gpu"):
        run = read_measured(f"classifier_contribution-{name}")
        for one in run["differences"]:
            (first, its), (second, others) = one["first"], one["second"]
            if first != second and its == others:
                figures = " | ".join(_interval(one["dice"][region]) for region in REGIONS)
                lines.append(f"| {run['epochs']} | `{first}` | `{second}` | {len(one['seeds'])} | {figures} |")
    return lines


def modalities():
    """Each one-modality network, and the average of four."""
    run = read_measured("classifier_contribution-gpu")
    lines = [f"{_trained_so(run)}; Dice x 100.", "", "| networks | seeds | ET | WT | TC |", "|---|--:|--:|--:|--:|"]
    for row in run["rows"]:
        if row["variant"] == "imagenet":
            figures = " | ".join(_interval(row["dice"][region]["normal"]) for region in REGIONS)
            lines.append(f"| {row['networks']} | {len(row['seeds'])} | {figures} |")
    return lines


NETWORKS = {
    "plus": "`embedding-plus`",
    "full-rate": "`embedding-plus`, classifier at the full rate",
    "fixed-classifier": "`embedding-plus`, classifier fixed",
    "random": "`embedding-plus`, random weights",
    "random-full-rate": "`embedding-plus`, random weights, full rate",
    "nnunet-augmentation": "`embedding-plus`, its preset's augmentation",
    "full-rate-augmented": "`embedding-plus`, full rate, its preset's augmentation",
    "slab2": "`embedding-plus`, slabs of 2 slices",
    "slab3": "`embedding-plus`, slabs of 3 slices",
    "slab6": "`embedding-plus`, slabs of 6 slices",
    "modality-dropout": "`embedding-plus`, a modality missing in 40 % of the steps",
    "embedding": "`embedding`, four networks",
    "albunet3d": "AlbuNet3D",
    "albunet3d-random": "AlbuNet3D, random weights",
    "segresnet": "MONAI's SegResNet",
    "nnunet": "nnU-Net's PlainConvUNet",
}
OTHERS = ("segresnet", "nnunet")


def real_cases():
    """Every network on the same real cases: Dice of all regions, HD95 of the whole tumour."""
    return _real_cases("real_cases")


def real_cases_2mm():
    """The same at larger voxels, several seeds each."""
    return _real_cases("real_cases-2mm")


def _real_cases(name):
    run = read(name)
    ceiling = {region: sum(values) / len(values) for region, values in run["ceiling"]["dice"].items()}
    lines = [
        f"{run['cases']} training cases, {len(run['validation_cases'])} others predicted and scored as whole files; "
        f"{run['crop']} at {run['spacing_mm']:g} mm; Dice x 100 with 95 % intervals over seeds and cases.",
        "",
        "| network | rate | steps | minutes | seeds | device | ET | WT | TC | HD95 of WT, mm |",
        "|---|--:|--:|--:|--:|---|--:|--:|--:|--:|",
    ]
    for row in run["rows"]:
        figures = " | ".join(_interval(row["dice"]["normal"][region]) for region in REGIONS)
        start = f"| {_network(row)} | {row['learning_rate']:g} | {row['steps']} | {row['training_minutes']:.1f}"
        start += f" | {len(row['seeds'])}"
        lines.append(f"{start} | {row['device']} | {figures} | {row['hd95_mm']['WT']['mean']:.1f} |")
    figures = " | ".join(f"{100 * ceiling[region]:.1f}" for region in REGIONS)
    return [*lines, f"| the truth itself, to these voxels and back |  |  |  |  |  | {figures} |  |"]


def _network(row):
    return NETWORKS.get(row["variant"], row["variant"])


def real_cases_2mm_differences():
    """What separates two networks trained on the same cases by the same seeds, and what blinding costs."""
    return _differences("real_cases-2mm")


def _trained(variant, how, run):
    """A network's name, with its rate and length where the table has that network in several."""
    if how is None or [row["variant"] for row in run["rows"]].count(variant) < 2:
        return _network({"variant": variant})
    length = f"{how['minutes']:g} minutes" if how["minutes"] else f"{how['epochs']} epochs"
    return f"{_network({'variant': variant})}, {length} at {how['learning_rate']:g}"


def _differences(name):
    run = read(name)
    lines = ["| first | minus second | seeds | ET | WT | TC |", "|---|---|--:|--:|--:|--:|"]
    for one in run["differences"]:
        first, second = (_trained(one[which], one.get(f"{which}_trained"), run) for which in ("first", "second"))
        figures = " | ".join(_interval(one["dice"][region]) for region in REGIONS)
        lines.append(f"| {first} | {second} | {len(one['seeds'])} | {figures} |")
    for row in run["rows"]:
        if "blinded" in row["dice"]:
            figures = " | ".join(_interval(row["unblinded_minus_blinded"][region]) for region in REGIONS)
            name, seeds = _trained(row["variant"], row, run), len(row["blinded_seeds"])
            lines.append(f"| {name} | the same, blinded | {seeds} | {figures} |")
    return lines


def real_cases_seen():
    """What is left without a modality, by averaging eight mirrored volumes, and without what the classifier sees."""
    run = read("real_cases-2mm")
    kinds = {"normal": "as it is", "mirrored": "mean of eight mirrored volumes", "blinded": "classifier blinded"}
    kinds |= {f"without-{name}": f"{title} missing" for name, title in MODALITIES.items()}
    lines = ["| network | prediction | seeds | ET | WT | TC |", "|---|---|--:|--:|--:|--:|"]
    for row in run["rows"]:
        if row["variant"] not in ("plus", "modality-dropout", *OTHERS):
            continue
        for kind, title in kinds.items():
            if kind in row["dice"]:
                figures = " | ".join(f"{100 * row['dice'][kind][region]['mean']:.1f}" for region in REGIONS)
                seeds = len(row["blinded_seeds"] if kind == "blinded" else row["seeds"])
                lines.append(f"| {_trained(row['variant'], row, run)} | {title} | {seeds} | {figures} |")
    return lines


def _trained_so(run):
    return (
        f"{run['cases']} training cases, {len(run['validation_cases'])} others predicted; {run['crop']} at "
        f"{run['spacing_mm']:g} mm, {run['epochs']} epochs, Adam {run['learning_rate']:g}, "
        f"{run['precision']}, {run['machine']}"
    )


def _interval(one):
    return f"{100 * one['mean']:.1f} ({100 * one['low']:.1f} to {100 * one['high']:.1f})"


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


def albunet():
    """The AlbuNet paper's Table 1, the paper's rows and ours."""
    run = read("albunet_table1")
    columns = " | ".join(f"{metric}, {region}" for metric in ("Dice", "HD95 mm") for region in REGIONS)
    lines = [f"| mean (median) | {columns} |", f"|---|{'--:|' * 6}"]
    ours = (
        f"ours, {run['length']}: {run['seeds']} runs, {run['cases']['training']} cases, "
        f"{run['cases']['validation']} validated"
    )
    rows = {f"{method} (the paper, BraTS 2020 validation)": row for method, row in papers()["albunet"].items()}
    rows |= {f"{method} ({ours})": row for method, row in run["table"].items()}
    for title, row in rows.items():
        cells = [
            f"{row[region][metric]['mean']:.{digits}f} ({row[region][metric]['median']:.{digits}f})"
            for metric, digits in (("dice", 4), ("hd95_mm", 1))
            for region in REGIONS
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def windows():
    """AlbuNet's forward pass and sliding window beside PyTorch and MONAI."""
    run = read("bench_windows")
    ours, peers = run["ours"], run["peers"]
    batch, shape, box, step = ("x".join(map(str, run[name])) for name in ("batch", "shape", "box", "step"))
    few, many = run["windows"]
    rows = (
        (f"forward pass, a batch of {batch}", "forward", "forward"),
        (f"{run['case']}, {shape}: the brain's box, {box}, in {few} windows, step {step}", "windows", "windows"),
        (f"the same with every one of {many} windows (ours skips those outside the box)", "windows", "whole"),
    )
    lines = [
        f"Measured on {run['machine']}, preset `{_current(run['preset'])}`, in one run.",
        "",
        "| | ours | PyTorch, MONAI |",
        "|---|--:|--:|",
    ]
    for title, mine, theirs in rows:
        cells = [
            f"{its[f'{name}_s']:.1f} s, {its[f'{name}_peak_gb']:.1f} GB"
            for its, name in ((ours, mine), (peers, theirs))
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def training():
    """A training step in each precision, with and without rematerialisation."""
    return _training("bench_training")


def training_float32():
    """The same on a processor without bfloat16."""
    return _training("bench_training-float32")


def training_plus():
    """The same for `embedding-plus`."""
    return _training("bench_training-plus")


def _training(name):
    run = read(name)
    crop, small = ("x".join(str(size) for size in run[name]) for name in ("crop", "small_crop"))
    lines = [
        f"Measured on {run['machine']} ({run['device']}), preset `{run.get('preset', 'embedding')}`, {crop}, in one "
        f"run; the loss is that of {run['case']} at {small}, learned for {run['steps']} steps.",
        "",
        f"| precision | `--rematerialise` | step | peak memory | loss, first {run['rows'][0]['first_loss']:.3f} |",
        "|---|---|--:|--:|--:|",
    ]
    for row in run["rows"]:
        step = f"{row['step_s']:.1f} s, × {row['step_s_share']:.2f}"
        memory, remat = f"{row['step_peak_gb']:.1f} GB", "yes" if row.get("rematerialise", row.get("remat")) else ""
        lines.append(f"| `{row['precision']}` | {remat} | {step} | {memory} | {row['last_loss']:.3f} |")
    return lines


def normalisation():
    """Error and time of group normalisation, Keras's and ours, over sizes."""
    run = read("exact_normalisation")
    return [
        f"Measured on {run['machine']}, Keras {run['versions']['keras']}, TensorFlow {run['versions']['tensorflow']}, "
        f"commit {run['commit']}; {run['channels']} channels.",
        "",
        "| volume | error, Keras | ours | error of the gradient, Keras | ours | seconds, Keras | ours |",
        "|---|--:|--:|--:|--:|--:|--:|",
        *(f"| {row['size']} | {' | '.join(_figures(row))} |" for row in run["rows"]),
    ]


def biases():
    """Error and time of the gradient of a bias, TensorFlow's and ours, over precisions and sizes."""
    run = read("exact_biases")
    lines = [
        f"Measured on {run['machine']}, TensorFlow {run['versions']['tensorflow']}, commit {run['commit']}; "
        f"{run['channels']} channels.",
        "",
        "| precision | volume | error, as a share of the sum, TensorFlow | ours | seconds, TensorFlow | ours |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in run["rows"]:
        kinds = ("tensorflow", "ours")
        cells = [f"{row[kind]['error']:.2g}" for kind in kinds] + [f"{row[kind]['seconds']:.2g}" for kind in kinds]
        lines.append(f"| `{row['precision']}` | {row['size']} | {' | '.join(cells)} |")
    return lines


def _figures(row):
    """The columns of one size, Keras's figure beside ours."""
    return [f"{row[kind][what]:.2g}" for what in ("error", "gradient_error", "seconds") for kind in ("keras", "ours")]


def round_trip():
    """Errors of the registration of each case, in mm, and over all of them."""
    run = read("round_trip")
    head = "| case | FLAIR | T1 | T2 | | FLAIR | T1 | T2 |"
    kinds = (("median_mm", "largest_mm"), ("without_files_median_mm", "without_files_largest_mm"))
    lines = [
        f"{_measured_on(run)}. Median / largest distance, mm; on the right without what lies in the files.",
        "",
        head,
        "|---|--:|--:|--:|---|--:|--:|--:|",
    ]
    found = {kind: [] for both in kinds for kind in both}
    for one in run["runs"]:
        cells = []
        for both in kinds:
            for name in REGISTERED:
                values = [one["registration"][name].get(kind) for kind in both]
                cells.append("–" if None in values else f"{values[0]:.2f} / {values[1]:.2f}")
                for kind, value in zip(both, values, strict=True):
                    found[kind] += [] if value is None else [value]
        lines.append(f"| {one['case']} | {' | '.join([*cells[:3], '', *cells[3:]])} |")
    said = [f"{statistics.median(found[low]):.2f} mm, largest {max(found[high]):.2f} mm" for low, high in kinds]
    return [*lines, "", f"The median of the medians: {said[0]}; without what lies in the files: {said[1]}."]


def round_trip_labels():
    """The Dice that is left after the way to a series and back, over that of the true transform."""
    run = read("round_trip")
    return [
        "| case | region | FLAIR | T1 | T1ce | T2 |",
        "|---|---|--:|--:|--:|--:|",
        *(
            f"| {one['case']} | {region} | "
            + " | ".join(f"{one['labels'][name][region]['ratio']:.3f}" for name in MODALITIES)
            + " |"
            for one in run["runs"]
            for region in ("WT", "TC", "ET")
        ),
    ]


def round_trip_seconds():
    """Seconds of each step: the median over cases, and the largest."""
    run = read("round_trip")
    steps = list(run["runs"][0]["seconds"])
    columns = [*([one["seconds"][step] for one in run["runs"]] for step in steps)]
    columns.append([sum(one["seconds"].values()) for one in run["runs"]])
    return [
        f"{_measured_on(run)}; {len(run['runs'])} patients of four series.",
        "",
        f"| | {' | '.join(steps)} | together |",
        f"|---|{'--:|' * len(columns)}",
        f"| median | {' | '.join(f'{statistics.median(column):.1f}' for column in columns)} |",
        f"| longest | {' | '.join(f'{max(column):.1f}' for column in columns)} |",
    ]


def registration_tools():
    """SimpleITK and ANTs beside each other, by series."""
    run = read("registration_tools")
    lines = [
        f"{_measured_on(run)}, {len(run['runs'])} cases, SimpleITK {run['tools']['simpleitk']}, antspyx "
        f"{run['tools']['ants']}. Medians over the cases; largest: over all points and cases.",
        "",
        "| series | SimpleITK: median, mm | largest, mm | seconds | ANTs: median, mm | largest, mm | seconds |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name in REGISTERED:
        cells = []
        for tool in ("simpleitk", "ants"):
            found = [one["series"][name][tool] for one in run["runs"]]
            cells += [
                f"{statistics.median(one['median_mm'] for one in found):.2f}",
                f"{max(one['largest_mm'] for one in found):.2f}",
                f"{statistics.median(one['seconds'] for one in found):.1f}",
            ]
        lines.append(f"| {MODALITIES[name]} | {' | '.join(cells)} |")
    return lines


def runtimes():
    """One trained network in three runtimes."""
    run = read("runtimes")
    crop = "x".join(map(str, run["crop"]))
    versions = ", ".join(f"{RUNTIMES[name]} {version}" for name, version in run["runtimes"].items())
    lines = [
        f"{_measured_on(run)}; `{run['run']}` at {crop}, {run['cases']} cases; {versions}. Differences are from the "
        "first row.",
        "",
        "| format | weights | MB | seconds to load | seconds a pass | peak memory, GB | largest difference | "
        "Dice change, mean / largest |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in run["rows"]:
        change = row["dice_change"]
        lines.append(
            f"| {RUNTIMES[row['kind']]} | {row['weight_type']} | {row['megabytes']:.1f} | {row['load_seconds']:.1f} | "
            f"{row['seconds']:.2f} | {row['peak_gb']:.2f} | {row['largest_difference']:.1e} | "
            f"{change['mean']:.1e} / {change['largest']:.1e} |"
        )
    return lines


def serve_load():
    """A server under eight clients."""
    run = read("serve_load")
    answers = ", ".join(f"{count} of status {status}" for status, count in sorted(run["answers"].items()))
    return [
        f"{_measured_on(run)}; `{run['run']}`, {run['cases']} cases, {run['clients']} clients, {run['seconds']:.0f} s, "
        f"{run['bad_share']:.0%} damaged uploads.",
        "",
        "| | |",
        "|---|--:|",
        f"| answers | {answers} |",
        f"| lost requests | {run['lost']} |",
        f"| label maps that differ from those of `predict` | {run['wrong']} |",
        f"| damaged uploads answered by other than 422 | {run['wrong_refusals']} |",
        f"| seconds a case, median / longest (eight wait for one another) | {run['median_seconds']:.1f} / "
        f"{run['longest_seconds']:.1f} |",
        f"| memory of the server after the first round / at the end, GB | {run['memory_first_gb']:.2f} / "
        f"{run['memory_last_gb']:.2f} |",
    ]


def cohort_on_ray():
    """A cohort by one process, and by Ray's."""
    run = read("cohort_on_ray")
    lines = [
        f"{_measured_on(run)}; `{run['run']}`, {run['cases']} cases.",
        "",
        "| | minutes | seconds to the first label map | seconds a case after it | memory of a process, GB "
        "| other label maps |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in run["rows"].items():
        each = (row["seconds"] - row["seconds_to_first"]) / (run["cases"] - 1)
        lines.append(
            f"| {name} | {row['seconds'] / 60:.1f} | {row['seconds_to_first']:.0f} | {each:.2f} | "
            f"{row['memory_gb']:.1f} | {row['different']} |"
        )
    return lines


def plus_on_cpu():
    """`embedding-plus` trained with `--minutes` on two cores at 2 mm, scored on other cases; mirrored, and blinded."""
    return _on_cpu("plus_on_cpu")


def plus_on_cpu_fine():
    """The same at 1.5 mm."""
    return _on_cpu("plus_on_cpu_fine")


def _on_cpu(name):
    run, scores, averaged = read(f"{name}_run"), read(name), read(f"{name}_averaged")
    data, blinded = run["settings"]["data"], read(f"{name}_classifier")
    size = "x".join(str(size) for size in data["crop"])
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
        together = f"{100 * sum(one['mean'] for one in dice) / len(dice):.1f}"
        rows[f"mean Dice x 100{title}, 95 % interval over cases"] = [*map(_interval, dice), together]
        rows[f"median Dice x 100{title}"] = [*(f"{one['median'] * 100:.1f}" for one in dice), ""]
    rows["median HD95, mm"] = [*(f"{scores[region]['hd95_mm']['median']:.1f}" for region in REGIONS), ""]
    rows["mean minus that of the blinded classifier"] = [
        *(_interval(blinded[region]["difference"]) for region in REGIONS),
        "",
    ]
    return lines + [f"| {name} | {' | '.join(values)} |" for name, values in rows.items()]


def _precision(run):
    return run["settings"]["compute"]["precision"]


def _measured_on(run):
    return f"Measured on {run['machine']}, commit {run['commit']}"


def _current(name):
    """The name that a preset has now."""
    return OLD_NAMES.get(name, name)


def publish(results):
    """Copies what commands wrote into a results folder to where the tables read it. Returns the paths copied."""
    found = {Path(results) / name: REPOSITORY / target for name, target in PUBLISHED.items()}
    copied = [path for path in found if path.is_file()]
    for path in copied:
        shutil.copyfile(path, found[path])
    return copied


def filled(text):
    """A page with its tables made anew."""
    for table in (
        results,
        overfit,
        bench,
        comparison,
        comparison_float32,
        growth,
        data,
        augmentation,
        scaling,
        batch_norm,
        planes,
        planes_small,
        contribution,
        contribution_gpu,
        pretraining,
        modalities,
        real_cases,
        real_cases_2mm,
        real_cases_2mm_differences,
        real_cases_seen,
        albunet,
        windows,
        training,
        training_float32,
        training_plus,
        normalisation,
        biases,
        round_trip,
        round_trip_labels,
        round_trip_seconds,
        registration_tools,
        runtimes,
        serve_load,
        cohort_on_ray,
        plus_on_cpu,
        plus_on_cpu_fine,
    ):
        name = table.__name__
        if f"<!-- table:{name} -->" in text:
            body = "\n".join(table())
            text = re.sub(
                f"<!-- table:{name} -->.*?<!-- /table:{name} -->",
                lambda _, name=name, body=body: f"<!-- table:{name} -->\n{body}\n<!-- /table:{name} -->",
                text,
                flags=re.DOTALL,
            )
    return text


def main(arguments):
    """Writes, checks or publishes. Returns the exit code."""
    if "--publish" in arguments:
        copied = publish(arguments[arguments.index("--publish") + 1])
        print("\n".join(f"published {path}" for path in copied) or "nothing to publish")
    stale = [page for page in PAGES if page.read_text() != filled(page.read_text())]
    if "--check" in arguments:
        for page in stale:
            print(f"{page.name} does not say what experiments/results says; run python experiments/tables.py")
        return 1 if stale else 0
    for page in stale:
        page.write_text(filled(page.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
