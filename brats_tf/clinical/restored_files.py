"""What lies in the folder that `restore` writes to, and the record of it."""

import itertools
from pathlib import Path

from brats_tf.regions import MODALITIES, REGIONS
from brats_tf.runtime.files import read_json

RESTORED_FILE = "restored.json"
ENDINGS = (".nii.gz", ".png", ".dcm")


def earlier_files(out, record):
    """What `restored.json` says of cases whose label map is still the same: {case id: of each series}, {case id: what
    they were made of} of those whose files are all there.
    """
    try:
        before = read_json(out / RESTORED_FILE)
        made = before["made_of"]
        same = {one for one in before["cases"] if made[one]["label_map"] == record["cases"][one]["sha256"]}
        parts = {"files", *(f"{region}_ml" for region in REGIONS)}
        found = {one: before["cases"][one] for one in same}
        found = {one: facts for one, facts in found.items() if all(parts <= part.keys() for part in facts.values())}
        there = {one for one, facts in found.items() if all(map(Path.is_file, _files(out / one, facts)))}
        return found, {one: made[one] for one in there}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # None, of another version, or damaged.
        return {}, {}


def has_pictures(restored):
    """Whether each series of a case has its picture, for which its files must be there."""
    return all(any(name.endswith(".png") for name in facts["files"]) for facts in restored.values())


def remove_others(folder, restored):
    """Removes the files of an earlier prediction, or of other series, from a case's folder."""
    kept = {name for facts in restored.values() for name in facts["files"]}
    for modality, ending in itertools.product(MODALITIES, ENDINGS):
        if (name := f"{folder.name}_{modality}_seg{ending}") not in kept:
            (folder / name).unlink(missing_ok=True)


def _files(folder, restored):
    return [folder / name for facts in restored.values() for name in facts["files"]]
