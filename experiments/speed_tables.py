"""Tables of seconds, memory and rounding errors."""

from results_files import current_name, measured_on, read

from brats_tf.errors import format_shape


def bench():
    """What a pass and a step cost, with the smallest and with the largest EfficientNet."""
    runs = [read("bench"), read("bench_efficientnetb7")]
    same = [{key: run[key] for key in ("machine", "preset", "crop")} for run in runs]
    if same[0] != same[1]:
        raise SystemExit(f"The two runs of the bench must be of one machine, preset and crop. Received: {same}.")
    crop = format_shape(runs[0]["crop"])
    rows = {
        "one pass": lambda run: f"{run['gflop']:.0f} GFLOP",
        "prediction": lambda run: f"{run['forward_s']:.1f} s, {run['forward_peak_gb']:.1f} GB",
        "training step": lambda run: f"{run['step_s']:.1f} s, {run['step_peak_gb']:.1f} GB",
        "matrix product of the machine, same run": lambda run: f"{run['matrix_gflops']:.0f} GFLOP/s",
        "share of it that prediction reaches": lambda run: f"{100 * run['share_of_matrix_rate']:.0f} %",
    }
    return [
        f"Measured on {runs[0]['machine']}, preset `{current_name(runs[0]['preset'])}`, {crop}, float32, one modality.",
        "",
        f"| | {' | '.join(run['backbone'] for run in runs)} |",
        f"|---|{'--:|' * len(runs)}",
        *(f"| {name} | {' | '.join(show(run) for run in runs)} |" for name, show in rows.items()),
    ]


def comparison():
    """Our passes and steps, and files to label maps, beside other systems'."""
    return _comparison("bench_comparison")


def comparison_avx512():
    """The same on a processor whose units for bfloat16 are those of AVX-512."""
    return _comparison("bench_comparison-avx512")


def comparison_float32():
    """The same on a processor without bfloat16."""
    return _comparison("bench_comparison-float32")


def _comparison(name):
    run = read(name)
    crop = format_shape(run["crop"])
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
    crop = format_shape(run["crop"])
    return [
        f"{measured_on(run)}, in one run; networks at {crop}.",
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
    crop = format_shape(run["crop"])
    speedup, gunzip = run["two_workers_speedup"], run["gunzip_speedup"]
    step, in_memory, ratio = 1000 * run["step_with_stream_s"], 1000 * run["step_in_memory_s"], run["stream_ratio"]
    rows = {
        "preparing a case (four modalities and truth), one worker": f"{run['prepare_s']:.2f} s",
        "share of it that is gunzip": f"{100 * run['gunzip_share']:.0f} %",
        "preparing a case, two workers": f"{run['two_workers_s']:.2f} s",
        "speed-up by the second worker; of gunzip alone": f"{speedup:.2f}; {gunzip:.2f}",
        "full crops a second from a warm cache": f"{run['crops_per_s']:.0f}",
        "training step of a small network on one batch in memory": f"{in_memory:.0f} ms",
        "the same with the stream": f"{step:.0f} ms, {ratio:.3f} times as long",
    }
    for preset, memory in run["memory"].items():
        first, *_, last = memory["gb"]
        growth = f"{first:.2f} GB, {last:.2f} GB: {100 * memory['growth']:+.1f} %"
        rows[f"memory after 100 and after 1,000 steps, augmentation `{current_name(preset)}`"] = growth
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


def windows():
    """AlbuNet's forward pass and sliding window beside PyTorch and MONAI."""
    run = read("bench_windows")
    ours, peers = run["ours"], run["peers"]
    batch, shape, box, step = (format_shape(run[name]) for name in ("batch", "shape", "box", "step"))
    few, many = run["windows"]
    rows = (
        (f"forward pass, a batch of {batch}", "forward", "forward"),
        (f"{run['case']}, {shape}: the brain's box, {box}, in {few} windows, stride {step}", "windows", "windows"),
        (f"the same with every one of {many} windows (ours skips those outside the box)", "windows", "whole"),
    )
    lines = [
        f"Measured on {run['machine']}, preset `{current_name(run['preset'])}`, in one run.",
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
    return _training("bench_training-embedding-plus")


def _training(name):
    run = read(name)
    crop, small = (format_shape(run[name]) for name in ("crop", "small_crop"))
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


def fewer_products():
    """Error and time of convolutions with fewer multiplications, and of plain ones."""
    run = read("fewer_products")
    lines = [
        f"Measured on {run['machine']}, TensorFlow {run['versions']['tensorflow']}, commit {run['commit']}.",
        "",
        "| volume | channels | prediction, s: plain | ours | step, s: plain | ours | error of the output: plain | ours "
        "| of the gradients: plain | ours |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in run["rows"]:
        both = [row[kind] for kind in ("plain", "ours")]
        cells = [f"{one[what]:.2g}" for what in ("prediction_s", "step_s", "output") for one in both]
        cells += [f"{max(one['input_gradient'], one['kernel_gradient']):.2g}" for one in both]
        lines.append(f"| {row['size']} | {row['channels']} | {' | '.join(cells)} |")
    return lines


def kernel_gradients():
    """Error and time of the gradient of a kernel, TensorFlow's and ours."""
    run = read("fewer_products")
    lines = [
        f"Measured on {run['machine']}, TensorFlow {run['versions']['tensorflow']}, commit {run['commit']}.",
        "",
        "| precision | volume | channels | seconds, TensorFlow | ours | error, as a share of the gradient: TensorFlow "
        "| ours |",
        "|---|---|---|--:|--:|--:|--:|",
    ]
    for row in sorted(run["gradients"], key=lambda row: row["precision"], reverse=True):
        both = [row[kind] for kind in ("tensorflow", "ours")]
        cells = [f"{one['seconds']:.2g}" for one in both]
        cells += ["not finite" if one["error"] is None else f"{one['error']:.1g}" for one in both]
        lines.append(f"| `{row['precision']}` | {row['size']} | {row['channels']} | {' | '.join(cells)} |")
    return lines


def _figures(row):
    """The columns of one size, Keras's figure beside ours."""
    return [f"{row[kind][what]:.2g}" for what in ("error", "gradient_error", "seconds") for kind in ("keras", "ours")]
