"""Tables of `embedding-plus` and others on the same real cases."""

from results_files import MODALITIES, REGIONS, interval, read

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
# What the variants of `real_cases-parts` have in place of a part of the first of each group.
PARTS = {
    "plus": {
        "mean-images": "images: means of the slab's slices, modalities mixed linearly",
        "block-images": "images: two convolutions with norm and ReLU between them",
        "coarse-scales": "scales: P3 to P5 alone",
        "no-detail": "detail: none",
        "full-size": "detail and head: 16 channels and a residual block at full size",
        "deep-supervision": "deep supervision: P2 and P3 predict the regions too",
        "dice-loss": "loss: -Dice alone",
        "cross-entropy": "loss: cross entropy alone",
        "background-dice": "loss: the Dice of the background counts too",
        "weighted-regions": "loss: WT, TC and ET weigh 1, 2 and 3",
        "averaged-weights": "weights: moving average (0.98 a step)",
        "constant-rate": "learning rate: constant instead of a cosine to 0",
        "full-rate": "classifier: at the full rate",
        "fixed-classifier": "classifier: fixed",
        "random": "classifier: random weights",
        "random-full-rate": "classifier: random weights, full rate",
    },
    "random-full-rate": {
        "random-efficientnetb2": "classifier: EfficientNet-B2, random weights, full rate",
        "random-efficientnetv2b0": "classifier: EfficientNetV2-B0, random weights, full rate",
        "random-convnext_tiny": "classifier: ConvNeXt-Tiny, random weights, full rate",
    },
}


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
        figures = " | ".join(interval(row["dice"]["normal"][region]) for region in REGIONS)
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
        figures = " | ".join(interval(one["dice"][region]) for region in REGIONS)
        mark = " †" if _unlike(one, run) else ""
        lines.append(f"| {first} | {second}{mark} | {len(one['seeds'])} | {figures} |")
    for row in run["rows"]:
        if "blinded" in row["dice"]:
            figures = " | ".join(interval(row["unblinded_minus_blinded"][region]) for region in REGIONS)
            name, seeds = _trained(row["variant"], row, run), len(row["blinded_seeds"])
            lines.append(f"| {name} | the same, blinded | {seeds} | {figures} |")
    if any("†" in line for line in lines):
        lines += [
            "",
            "† Trained on another processor, or in another precision or one that is not recorded, than the first.",
        ]
    return lines


def _trainings(variant, trained, run):
    """The trainings of one row: of a variant, by its epochs, minutes and rate."""
    return [
        one
        for one in run["runs"]
        if one["variant"] == variant and all(one.get(name) == value for name, value in (trained or {}).items())
    ]


def _unlike(difference, run):
    """Whether two networks ran on different devices or in different precisions, or that of one is not recorded."""
    first, second = (
        _trainings(difference[which], difference.get(f"{which}_trained"), run) for which in ("first", "second")
    )
    devices = [{one["device"] for one in some} for some in (first, second)]
    precisions = [
        {network["precision"] for one in some for network in one.get("networks", ())[:1] if "precision" in network}
        for some in (first, second)
    ]
    return devices[0] != devices[1] or precisions[0] != precisions[1]


def real_cases_parts():
    """`embedding-plus` with another part in place of one of its own: Dice, and the difference by the same seeds."""
    run = read("real_cases-parts")
    rows = {row["variant"]: row for row in run["rows"]}
    first = rows["plus"]
    lines = [
        f"{run['cases']} training cases, {len(run['validation_cases'])} others scored as whole files; {run['crop']} at "
        f"{run['spacing_mm']:g} mm, {first['steps']} steps, {first['device']}; Dice x 100. The difference is "
        "that of the mean of the three regions, by the seeds that both have, with 95 % intervals over seeds and cases.",
        "",
        "| what differs | seeds | ET | WT | TC | minus what it replaces |",
        "|---|--:|--:|--:|--:|--:|",
        _part(first, "`embedding-plus`", ""),
    ]
    for base, variants in PARTS.items():
        for variant, title in variants.items():
            if variant in rows:
                lines.append(_part(rows[variant], title, interval(_minus(run, variant, base))))
    return lines


def _part(row, title, difference):
    figures = " | ".join(f"{100 * row['dice']['normal'][region]['mean']:.1f}" for region in REGIONS)
    return f"| {title} | {len(row['seeds'])} | {figures} | {difference} |"


def _minus(run, variant, base):
    """What a variant's mean Dice is more than that of another, which comes first in the file."""
    (found,) = (one for one in run["differences"] if (one["first"], one["second"]) == (base, variant))
    mean = found["dice"]["mean"]
    return {"mean": 0 - mean["mean"], "low": 0 - mean["high"], "high": 0 - mean["low"]}  # Never "-0.0".


def real_cases_folds():
    """Every case scored by a network that was trained on the other folds; what separates two networks by it."""
    run = read("real_cases-folds")
    steps = " and ".join(sorted({str(row["steps"]) for row in run["rows"]}))
    cases, device = len(run["validation_cases"]), run["rows"][0]["device"]
    lines = [
        f"{cases} cases in {run['folds']} folds, each scored as a whole file by a network trained on the other folds; "
        f"{run['crop']} at {run['spacing_mm']:g} mm, {steps} steps, {device}; Dice x 100 with 95 % intervals over "
        "cases.",
        "",
        "| | ET | WT | TC | all three |",
        "|---|--:|--:|--:|--:|",
    ]
    for row in run["rows"]:
        lines.append(_regions(_network(row), row["dice"]["normal"]))
    for one in run["differences"]:
        first, second = (_network({"variant": one[which]}) for which in ("first", "second"))
        lines.append(_regions(f"{first} minus {second}", one["dice"]))
    for row in run["rows"]:
        if "blinded" in row["dice"]:
            lines.append(_regions(f"{_network(row)} minus the same, blinded", row["unblinded_minus_blinded"]))
    return lines


def _regions(title, dice):
    mean = interval(dice["mean"]) if "mean" in dice else ""
    return f"| {title} | {' | '.join(interval(dice[region]) for region in REGIONS)} | {mean} |"


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
                trained = {name: row[name] for name in ("epochs", "minutes", "learning_rate")}
                seeds = sum(kind in one for one in _trainings(row["variant"], trained, run))
                lines.append(f"| {_trained(row['variant'], row, run)} | {title} | {seeds} | {figures} |")
    return lines
