"""Cases that a file lists: a user's CSV or JSON, and the `dataset.json` of the Medical Segmentation Decathlon."""

from brats_tf.data.case import Case
from brats_tf.data.layouts import GRADES, PARTS, SEGMENTATION, ListLayout, MsdLayout, is_safe, stem
from brats_tf.errors import InputError
from brats_tf.regions import CONVENTIONS, MODALITIES
from brats_tf.runtime.files import read_csv, read_json

COLUMNS = ("id", *PARTS, "convention", "grade", "patient")
MSD_FOLDERS = ("imagesTr", "labelsTr", "imagesTs")
# What Task01's dataset.json says; another numbering would be another data set.
MSD_MODALITIES = {"flair": "flair", "t1w": "t1", "t1gd": "t1ce", "t2w": "t2"}
MSD_LABELS = {"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumor": 3}


def read_list(path, *, images=True):
    """Reads a list of cases.

    Args:
        path: a `.csv` with a header, or a `.json` list of objects, with the columns of `COLUMNS`: `id`, a file for each
            of flair, t1, t1ce, t2, seg (relative to the list; empty where there is none), `convention` (a key of
            `regions.CONVENTIONS`; needed), and, if known, `grade` (HGG, LGG) and `patient`.
        images: whether each case needs a modality; without, a segmentation is enough.

    Returns:
        (cases, skipped) as `find_cases` does.

    Raises:
        InputError: when the list cannot be read, or a row of it is wrong.
    """
    rows = _read_rows(path)
    cases = {}
    for number, row in enumerate(rows, start=1):
        case = _case_of(row, f"{path}, case {number}", path.parent, images)
        if case.id in cases:
            raise InputError(f"{path}, case {number}: the id {case.id} stands in the list twice.")
        cases[case.id] = case
    if not cases:
        raise InputError(f"No case in {path}: expected a row for each, received none.")
    return [cases[key] for key in sorted(cases)], []


def _read_rows(path):
    try:
        if path.suffix.lower() == ".json":
            rows = read_json(path)
        elif path.suffix.lower() == ".csv":
            rows = read_csv(path)
        else:
            raise InputError(f"A list of cases must be .csv or .json, or a folder. Received: {path}.")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no readable list of cases: {error}.") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} must hold a list of objects, one a case. Received: {type(rows).__name__}.")
    return rows


def _case_of(row, where, folder, images):
    unknown = [str(key) for key in row if key not in COLUMNS]
    if unknown:
        raise InputError(f"{where}: columns must be from {', '.join(COLUMNS)}. Received: {', '.join(unknown)}.")
    if not all(isinstance(value, str | None) for value in row.values()):
        raise InputError(f"{where}: values must be text. Received: {row}.")
    given = {key: value.strip() for key, value in row.items() if value and value.strip()}
    if not is_safe(given.get("id", "")):
        raise InputError(f"{where}: `id` must be a name that a file can have. Received: {row.get('id')!r}.")
    if given.get("convention") not in CONVENTIONS:
        known = ", ".join(CONVENTIONS)
        raise InputError(f"{where}: `convention` must be one of {known}. Received: {row.get('convention')!r}.")
    if given.get("grade", GRADES[0]) not in GRADES:
        raise InputError(f"{where}: `grade` must be {' or '.join(GRADES)}, or empty. Received: {given['grade']!r}.")
    files = {part: folder / given[part] for part in PARTS if part in given}
    for part, path in files.items():
        if not path.is_file():
            raise InputError(f"{where}: `{part}` must name a file. Received: {path}, which is not there.")
    segmentation = files.pop(SEGMENTATION, None)
    if not files and (images or not segmentation):
        raise InputError(f"{where}: a case needs one of {', '.join(MODALITIES)}. Received: none.")
    layout = ListLayout(CONVENTIONS[given["convention"]])
    return Case(
        given["id"], files, segmentation, layout, folder, grade=given.get("grade"), patient=given.get("patient", "")
    )


def read_msd(path, skipped):
    """The cases of a Task01 `dataset.json`; what does not fit goes to `skipped` with its reason."""
    try:
        described = read_json(path)
        channels = {MSD_MODALITIES[name.lower()]: int(index) for index, name in described.get("modality", {}).items()}
        labels = {
            name.lower().replace("tumour", "tumor"): int(number) for number, name in described.get("labels", {}).items()
        }
        entries = [*described.get("training", []), *described.get("test", [])]
        pairs = [(e["image"], e.get("label")) if isinstance(e, dict) else (e, None) for e in entries]
        if not all(image and isinstance(image, str) and isinstance(label, str | None) for image, label in pairs):
            raise ValueError("each case must name an image, and perhaps a label")
        if min(channels.values(), default=0) < 0:
            raise ValueError("channels are counted from 0")
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        skipped.append((path, f"it does not describe MSD Task01: {type(error).__name__} {error}"))
        return
    if {**labels, **MSD_LABELS} != labels or not channels:
        expected = ", ".join(f"{number} {name}" for name, number in MSD_LABELS.items())
        skipped.append((path, f"it does not describe MSD Task01: expected the labels {expected}, received {labels}"))
        return
    for image, label in pairs:
        image_path, label_path = (path.parent / name if name else None for name in (image, label))
        absent = next((p for p in (image_path, label_path) if p and not p.is_file()), None)
        if absent:
            skipped.append((absent, f"{path.name} names it, but it is not there"))
            continue
        volumes = dict.fromkeys((name for name in MODALITIES if name in channels), image_path)
        yield Case(stem(image_path.name), volumes, label_path, MsdLayout(), image_path.parent, channels)
