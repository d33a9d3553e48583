"""Modalities, label conventions and the three nested regions: the facts that everything else shares.

Inside the package a segmentation is an array of *classes* (0 background, 1 necrosis, 2 edema, 3 enhancing tumour),
whatever numbers the file used; regions are derived from classes.
"""

from dataclasses import dataclass

import numpy as np

from brats_tf.errors import InputError

MODALITIES = ("flair", "t1", "t1ce", "t2")
CLASSES = ("background", "necrosis", "edema", "enhancing")
NECROSIS, ENHANCING = CLASSES.index("necrosis"), CLASSES.index("enhancing")
REGIONS = ("WT", "TC", "ET")  # The order of channels: whole tumour, tumour core, enhancing tumour.
REGION_THRESHOLD = 0.5  # A voxel belongs to a region when its probability is above this.

# Which region (column) a class (row) belongs to. "Necrosis" stands for necrotic and non-enhancing core.
MEMBERSHIP = np.array([[0, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 1]], dtype=np.uint8)


@dataclass(frozen=True)
class Convention:
    """The numbers that one year's label files use for `CLASSES`."""

    name: str
    labels: tuple  # In the order of CLASSES; predictions are written with these.
    others: tuple = ()  # (label, class) of labels that `CLASSES` has no class of its own for.

    @property
    def known(self):
        """Every label that a file may hold, sorted."""
        return tuple(sorted((*self.labels, *(label for label, _ in self.others))))


BRATS_2017 = Convention("BraTS 2017-2021", (0, 1, 2, 4))
BRATS_2023 = Convention("BraTS 2023", (0, 1, 2, 3))
# Label 4 is the resection cavity, in none of the regions: background.
BRATS_2024 = Convention("BraTS 2024 post-treatment", (0, 1, 2, 3), others=((4, "background"),))
# Children: 1 enhancing, 2 non-enhancing, 3 cysts (part of the core), 4 edema.
BRATS_2024_PED = Convention("BraTS 2024 PED", (0, 2, 4, 1), others=((3, "necrosis"),))
MSD_TASK01 = Convention("MSD Task01", (0, 2, 1, 3))  # 1 is the edema, 2 the non-enhancing core.

# How a list of cases names them.
CONVENTIONS = {
    "brats2017": BRATS_2017,
    "brats2023": BRATS_2023,
    "brats2024": BRATS_2024,
    "brats2024-ped": BRATS_2024_PED,
    "msd": MSD_TASK01,
}


def labels_to_classes(labels, convention):
    """Translates a file's labels to class indices: (H, W, D) -> (H, W, D), uint8.

    >>> labels_to_classes(np.array([[[0, 1, 2, 4]]]), BRATS_2017)
    array([[[0, 1, 2, 3]]], dtype=uint8)

    Raises:
        InputError: when a value is not in the convention.
    """
    table = np.full(256, 255, dtype=np.uint8)
    table[list(convention.labels)] = range(len(CLASSES))
    for label, name in convention.others:
        table[label] = CLASSES.index(name)
    with np.errstate(invalid="ignore"):  # NaN becomes some number, and then differs from it.
        whole = np.asarray(labels).astype(np.uint8)
    classes = table[whole]
    classes[whole != labels] = 255
    if (classes == 255).any():
        unknown = np.unique(np.asarray(labels)[classes == 255])[:5]
        raise InputError(
            f"labels {_listed(convention.known)} expected ({convention.name}), "
            f"received also {_listed(f'{value:g}' for value in unknown)}"
        )
    return classes


def classes_to_labels(classes, convention):
    """Translates class indices back to the numbers of a convention: (H, W, D) -> (H, W, D), uint8."""
    return np.array(convention.labels, dtype=np.uint8)[classes]


def classes_to_regions(classes):
    """Derives the nested regions: (H, W, D) classes -> (H, W, D, 3) WT, TC, ET, bool.

    >>> classes_to_regions(np.array([[[0, 1, 2, 3]]]))[0, 0].astype(int).tolist()
    [[0, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 1]]
    """
    return MEMBERSHIP[classes].astype(bool)


def regions_to_classes(regions):
    """Paints WT as edema, over it TC as necrosis, over it ET: (H, W, D, 3) bool -> (H, W, D) classes, uint8.

    Painting makes regions nested that a network left otherwise: a voxel of ET alone counts for TC and WT too.

    >>> regions_to_classes(np.array([[[[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1]]]])).tolist()
    [[[0, 2, 1, 3]]]
    """
    regions = np.asarray(regions, dtype=bool)
    classes = np.zeros(regions.shape[:-1], dtype=np.uint8)
    for region, name in zip(range(len(REGIONS)), ("edema", "necrosis", "enhancing"), strict=True):
        classes[regions[..., region]] = CLASSES.index(name)
    return classes


def classes_above_threshold(regions):
    """Paints the regions whose probability is above `REGION_THRESHOLD`, see `regions_to_classes`."""
    return regions_to_classes(regions > REGION_THRESHOLD)


def likeliest_classes(regions):
    """The likeliest class by the probabilities of regions that classes add up to: (H, W, D, 3) -> (H, W, D), uint8.

    >>> likeliest_classes(np.array([[[[0.6, 0.3, 0.0], [0.9, 0.6, 0.5]]]])).tolist()
    [[[0, 3]]]
    """
    whole, core, enhancing = (regions[..., number] for number in range(len(REGIONS)))
    of_class = {"background": 1 - whole, "necrosis": core - enhancing, "edema": whole - core, "enhancing": enhancing}
    return np.stack([of_class[name] for name in CLASSES]).argmax(axis=0).astype(np.uint8)


def _listed(values):
    return ", ".join(str(value) for value in values)
