"""Scores of the label maps of `real_cases.py`: means and intervals over seeds and cases."""

import json
import logging

import numpy as np
import packed_cases
from intervals import over_seeds_and_cases
from real_networks import PLUS

from brats_tf.errors import InputError, format_shape
from brats_tf.regions import MODALITIES, REGIONS
from brats_tf.runtime.console import track
from brats_tf.runtime.files import write_json

BASE = "plus"
RANDOM = "random-full-rate"
ALSO = {("full-rate", RANDOM), ("random", RANDOM)}
ALSO |= {(RANDOM, one) for one in PLUS if one.startswith("random-") and one != RANDOM}
log = logging.getLogger("brats_tf.experiments")
KINDS = ("normal", "mirrored", "blinded", *(f"without-{modality}" for modality in MODALITIES))


def score(given):
    """Compares the label maps with the files and writes the results.

    What the results file holds of other networks, trained elsewhere, say, stays in it.
    """
    from provenance import continued, provenance

    from brats_tf.data.discovery import find_cases

    paths = sorted(given.networks.glob("*.npz"))
    if not paths:
        raise InputError(f"{given.networks} must hold what `train` writes. Received: no .npz file.")
    first = facts_of(paths[0])
    cropped = first["crop"], first["spacing_mm"]
    cases = [case for folder in given.scored for case in find_cases(folder)[0]]
    scorer = packed_cases.CaseScorer(cases, crop=cropped[0], spacing_mm=cropped[1])
    path = given.results / f"{given.name}.json"
    facts = _settings(*cropped, first["cases"], first.get("fold", (0, 0))[1])
    before = continued(path, facts | {"validation_cases": scorer.ids})
    done = []
    for one, *others in track(_trainings(paths), "Scoring"):
        about, maps = _of_all_folds(one, others, scorer.ids) if others else _read(one)
        received = about.pop("crop"), about.pop("spacing_mm")
        if (received, about["cases"]) != (cropped, facts["cases"]):
            raise InputError(
                f"{one} must be of the crop, spacing and number of cases of {paths[0]}: {cropped}, {facts['cases']}. "
                f"Received: {received}, {about['cases']}."
            )
        if file_ids := about.pop("validation_cases", None):
            check_ids(one, file_ids, scorer.ids)
        done.append(about | {kind: scorer.scores(its, distances=kind == "normal") for kind, its in maps.items()})
    _check_training_cases([*before, *done])
    scored = {_setting(one) for one in done}
    runs = [one for one in before if _setting(one) not in scored] + done
    facts |= {"machine": _devices(runs), "validation_cases": scorer.ids, "ceiling": scorer.ceiling(), "runs": runs}
    write_json(path, provenance() | facts | compared(runs))
    log.info(f"Written to {path}.")


def _settings(crop, spacing_mm, cases, folds):
    """What all trainings in a results file share, besides the cases that they predict."""
    facts = {"crop": format_shape(crop), "spacing_mm": spacing_mm, "cases": cases}
    return facts | ({"folds": folds} if folds else {})


def check_continued(given):
    """Raises `InputError` where `score` would refuse the results file of a `run`, before anything is trained for it."""
    from provenance import continued

    shared, ids = packed_cases.cropped(given.folder), packed_cases.ids_in(given.folder)
    steps = packed_cases.steps_of_epoch(ids, given.folds)
    facts = _settings(shared["crop"], shared["spacing_mm"], steps, given.folds)
    predicted = [*(ids["training"] if given.folds else ()), *ids["validation"]]
    continued(given.results / f"{given.name}.json", facts | {"validation_cases": predicted})


def _check_training_cases(runs):
    """Raises `InputError` when networks were trained on different cases; older files do not say on which."""
    known = [one for one in runs if "training_cases" in one]
    for one in known:
        if one["training_cases"] != known[0]["training_cases"]:
            raise InputError(
                f"All networks must be trained on the same cases: {', '.join(known[0]['training_cases'])} "
                f"({known[0]['variant']}). Received: {', '.join(one['training_cases'])} ({one['variant']})."
            )


def _devices(runs):
    return " and ".join(sorted({one["device"] for one in runs}))


def _check_alike(group, runs):
    """Raises `InputError` when the seeds of a row were trained in other ways; older files do not say all of it."""
    for name, title in (("precision", "precision"), ("versions", "libraries")):
        known = [one["networks"][0][name] for one in runs if one.get("networks") and name in one["networks"][0]]
        kinds = sorted({str(list(value) if isinstance(value, dict) else value) for value in known})
        if len(kinds) > 1:
            raise InputError(f"All seeds of {group[0]} must have the same {title}. Received: {' and '.join(kinds)}.")


def _setting(one):
    """What tells one training from another."""
    return (*_group(one), one["seed"])


def _group(one):
    """What tells the trainings of one row from those of another."""
    return one["variant"], one.get("epochs"), one.get("minutes"), one["learning_rate"]


def _length(group):
    return dict(zip(("epochs", "minutes", "learning_rate"), group[1:], strict=True))


def facts_of(path):
    """The facts in a file of `train`, without reading its label maps."""
    with np.load(path) as file:
        return json.loads(str(file["facts"]))


def check_trained_alike(path, facts):
    """Raises `InputError` when the network in a file was trained otherwise, or on others, than is asked for now."""
    before = facts_of(path)
    if others := [name for name, value in facts.items() if name in before and before[name] != value]:
        raise InputError(f"{path} was trained with other {', '.join(others)}: name another folder with --out.")


def _read(path):
    """(facts, {kind: label maps}) of a file of `train`."""
    with np.load(path) as file:
        return facts_of(path), {kind: file[kind] for kind in file.files if kind != "facts"}


def _trainings(paths):
    """The files of each training: one, or one for each fold; without those that lack a fold."""
    found = {}
    for path in paths:
        about = facts_of(path)
        fold, folds = about.get("fold", (0, 1))
        found.setdefault((folds, _setting(about)), {})[fold] = path
    for (folds, setting), its in [*found.items()]:
        if len(its) < folds:
            first = next(iter(its.values()))
            log.info(f"Left out: {first.stem} and others of its training, which has {len(its)} of {folds} folds.")
            del found[folds, setting]
    if not found:
        raise InputError(f"No training in {paths[0].parent} has all its folds.")
    return [[its[fold] for fold in sorted(its)] for its in found.values()]


def _of_all_folds(first, others, ids):
    """(facts, {kind: label maps}) of the files of all folds; facts that differ are those of the first fold."""
    about, maps = _read(first)
    rest = [_read(path) for path in others]
    together = {"validation_cases": [*about["validation_cases"]], "training_cases": sorted(ids)}
    for facts, _ in rest:
        together["validation_cases"] += facts["validation_cases"]
    if sorted(together["validation_cases"]) != sorted(ids):
        check_ids(first, together["validation_cases"], ids)
    kinds = [one.keys() for one in (maps, *(its for _, its in rest))]
    if any(one != kinds[0] for one in kinds):
        raise InputError(f"All folds of {first.stem} must have the same kinds of predictions. Received others.")
    order = [together["validation_cases"].index(case_id) for case_id in ids]
    joined = {kind: np.concatenate([its, *(one[kind] for _, one in rest)])[order] for kind, its in maps.items()}
    return about | together | {"validation_cases": ids}, joined


def check_ids(path, received, expected):
    """Raises `InputError` when a file has label maps of other cases than are to be scored."""
    if received != expected:
        raise InputError(
            f"{path} has label maps of {', '.join(received)}. Expected the cases of VALIDATION: {', '.join(expected)}."
        )


def compared(done):
    """{"rows": one for each variant, length and rate, "differences"}; means and intervals over seeds and cases."""
    groups = {}
    for one in done:
        groups.setdefault(_group(one), {})[one["seed"]] = one
    rows = []
    for (variant, epochs, minutes, rate), its in groups.items():
        _check_alike((variant, epochs, minutes, rate), list(its.values()))
        row = {"variant": variant, "epochs": epochs, "minutes": minutes, "learning_rate": rate, "seeds": sorted(its)}
        row["steps"] = int(np.mean([one["steps"] for one in its.values()]))
        runs = [its[seed] for seed in row["seeds"]]
        row["dice"], having = {}, {kind: [one for one in runs if kind in one] for kind in KINDS}
        for kind, some in having.items():
            if some:
                row["dice"][kind] = {
                    region: over_seeds_and_cases(_array(some, kind, "dice", region)) for region in REGIONS
                }
        row["hd95_mm"] = {region: over_seeds_and_cases(_array(runs, "normal", "hd95_mm", region)) for region in REGIONS}
        row["device"] = _devices(runs)
        row["seconds_a_step"] = float(np.median([one["seconds_a_step"] for one in runs]))
        trained = [one["steps"] * sum(network["seconds_a_step"] for network in one["networks"]) for one in runs]
        row["training_minutes"] = float(np.median(trained)) / 60
        if blinded := having["blinded"]:
            row["blinded_seeds"] = [one["seed"] for one in blinded]
            row["unblinded_minus_blinded"] = {
                region: over_seeds_and_cases(
                    _array(blinded, "normal", "dice", region) - _array(blinded, "blinded", "dice", region)
                )
                for region in REGIONS
            }
        rows.append(row)
    return {"rows": rows, "differences": list(_differences(groups))}


def _differences(groups):
    """Differences by the seeds that both have: of `BASE` and every other network, of its own variants after equal
    training; and of the pairs `ALSO`, which differ in one thing alone. "mean" is that of all three regions.
    """
    for base, its in groups.items():
        for other, theirs in groups.items():
            seeds = sorted(its.keys() & theirs.keys())
            comparable = other[0] not in PLUS or other[1:] == base[1:]
            wanted = (base[0] == BASE and other[0] != BASE) or (base[0], other[0]) in ALSO
            if wanted and seeds and comparable:
                pairs = [[runs[seed] for seed in seeds] for runs in (its, theirs)]
                found = {
                    region: np.subtract(*(_array(one, "normal", "dice", region) for one in pairs)) for region in REGIONS
                }
                found["mean"] = np.mean([*found.values()], axis=0)
                dice = {name: over_seeds_and_cases(values) for name, values in found.items()}
                names = {"first": base[0], "first_trained": _length(base)}
                names |= {"second": other[0], "second_trained": _length(other)}
                yield names | {"seeds": seeds, "dice": dice}


def _array(runs, kind, measure, region):
    return np.array([one[kind][measure][region] for one in runs], float)
