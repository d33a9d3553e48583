"""What is in a data folder: a table of the cases found, and what was skipped and why."""

from rich.markup import escape
from rich.table import Table

from brats_tf.data.cases import find_cases
from brats_tf.regions import MODALITIES
from brats_tf.screen import console, say


def show_cases(root):
    """Prints the cases below `root`. Raises `InputError` when there is none."""
    cases, skipped = find_cases(root)
    table = Table(title=escape(f"{len(cases)} cases in {root}"))
    for column in ("case", *MODALITIES, "truth", "labels"):
        table.add_column(column, no_wrap=column == "case")
    for case in cases:
        there = ["yes" if modality in case.volumes else "MISSING" for modality in MODALITIES]
        labels = f"{case.convention.name}: {' '.join(map(str, case.convention.labels))}"
        table.add_row(escape(case.id), *there, "yes" if case.segmentation else "no", labels)
    console.print(table)
    for path, reason in skipped:
        say(f"Skipped {path}: {reason}.")
    say(f"{len(cases)} cases found, {len(skipped)} files or folders skipped.")
