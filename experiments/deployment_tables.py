"""Tables of exported networks, servers, clusters, and the way from a scanner and back."""

import statistics

from results_files import MODALITIES, measured_on, read

from brats_tf.errors import format_shape

RUNTIMES = {"savedmodel": "TensorFlow's SavedModel", "onnx": "ONNX Runtime", "litert": "LiteRT"}
RUNTIMES |= {"tensorflow": "TensorFlow", "onnxruntime": "ONNX Runtime", "ai-edge-litert": "LiteRT"}
REGISTERED = ("flair", "t1", "t2")  # To T1ce.


def runtimes():
    """One trained network in three runtimes."""
    run = read("runtimes")
    crop = format_shape(run["crop"])
    versions = ", ".join(f"{RUNTIMES[name]} {version}" for name, version in run["runtimes"].items())
    lines = [
        f"{measured_on(run)}; `{run['run']}` at {crop}, {run['cases']} cases; {versions}. Differences are from the "
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
        f"{measured_on(run)}; `{run['run']}`, {run['cases']} cases, {run['clients']} clients, {run['seconds']:.0f} s, "
        f"{run['bad_share']:.0%} damaged uploads.",
        "",
        "| | |",
        "|---|--:|",
        f"| answers | {answers} |",
        f"| lost requests | {run['lost']} |",
        f"| label maps that differ from those of `predict` | {run['wrong']} |",
        f"| damaged uploads answered by other than 422 | {run['wrong_refusals']} |",
        f"| seconds a case, median / longest ({run['clients']} wait for one another) | {run['median_seconds']:.1f} / "
        f"{run['longest_seconds']:.1f} |",
        f"| memory of the server after the first round / at the end, GB | {run['memory_first_gb']:.2f} / "
        f"{run['memory_last_gb']:.2f} |",
    ]


def cohort_on_ray():
    """A cohort by one process, and by Ray's."""
    run = read("cohort_on_ray")
    lines = [
        f"{measured_on(run)}; `{run['run']}`, {run['cases']} cases.",
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


def round_trip():
    """Errors of the registration of each case, in mm, and over all of them."""
    run = read("round_trip")
    head = "| case | FLAIR | T1 | T2 | | FLAIR | T1 | T2 |"
    kinds = (("median_mm", "largest_mm"), ("without_files_median_mm", "without_files_largest_mm"))
    lines = [
        f"{measured_on(run)}. Median / largest distance, mm; on the right less the misalignment that the same "
        "registration finds between the untouched files.",
        "",
        head,
        "|---|--:|--:|--:|---|--:|--:|--:|",
    ]
    found = {kind: [] for both in kinds for kind in both}
    for one in run["runs"]:
        if "failure" in one:
            lines.append(f"| {one['case']} | {one['failure']} | | | | | | |")
            continue
        cells = []
        for both in kinds:
            for name in REGISTERED:
                values = [one["registration"][name].get(kind) for kind in both]
                cells.append("–" if None in values else f"{values[0]:.2f} / {values[1]:.2f}")
                for kind, value in zip(both, values, strict=True):
                    found[kind] += [] if value is None else [value]
        lines.append(f"| {one['case']} | {' | '.join([*cells[:3], '', *cells[3:]])} |")
    said = [f"{statistics.median(found[low]):.2f} mm, largest {max(found[high]):.2f} mm" for low, high in kinds]
    return [*lines, "", f"The median of the medians: {said[0]}; less that misalignment: {said[1]}."]


def round_trip_labels():
    """The Dice that is left after the way to a series and back, over that of the true transform."""
    runs = [one for one in read("round_trip")["runs"] if "failure" not in one]
    return [
        "| case | region | FLAIR | T1 | T1ce | T2 |",
        "|---|---|--:|--:|--:|--:|",
        *(
            f"| {one['case']} | {region} | "
            + " | ".join(f"{one['labels'][name][region]['ratio']:.3f}" for name in MODALITIES)
            + " |"
            for one in runs
            for region in ("WT", "TC", "ET")
        ),
    ]


def round_trip_seconds():
    """Seconds of each step: the median over cases, and the largest."""
    run = read("round_trip")
    runs = [one for one in run["runs"] if "failure" not in one]
    steps = list(runs[0]["seconds"])
    columns = [*([one["seconds"][step] for one in runs] for step in steps)]
    columns.append([sum(one["seconds"].values()) for one in runs])
    return [
        f"{measured_on(run)}; {len(runs)} patients of four series.",
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
        f"{measured_on(run)}, {len(run['runs'])} cases, SimpleITK {run['tools']['simpleitk']}, antspyx "
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
