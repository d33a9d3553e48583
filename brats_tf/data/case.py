"""One scan of one patient: its files, and what its name and place tell."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from brats_tf.data.layouts import SEGMENTATION, Layout, ListLayout, MsdLayout
from brats_tf.errors import InputError

# Case ids that end with the number of a scan or of a time point; before it, the patient.
_SCAN = re.compile(r"(brats1[789]_\w+)_\d|(brats-\w+-\d+)-\d{3}", re.I)


@dataclass(frozen=True)
class Case:
    """One scan of one patient: its files, and what its name and place tell."""

    id: str
    volumes: dict  # modality -> Path, only those that are there
    segmentation: Path | None
    layout: Layout | MsdLayout | ListLayout
    folder: Path
    channels: dict = field(default_factory=dict)  # modality -> index of the last axis, where one file holds several
    grade: str | None = None  # "HGG" or "LGG", where a folder or a name mapping says so
    patient: str = ""  # Several scans of one patient share it; the id where nothing else is known

    def __post_init__(self):
        object.__setattr__(self, "patient", self.patient or patient_of(self.id))

    @property
    def convention(self):
        """The label convention, which follows from the layout."""
        return self.layout.convention

    def with_convention(self, convention):
        """The same case with a `regions.Convention` that is certain, whatever its layout's note says."""
        return replace(self, layout=replace(self.layout, convention=convention, note=""))

    def require(self, part):
        """The path of a modality, or of "seg". Raises `InputError` when the case has no such file."""
        path = self.segmentation if part == SEGMENTATION else self.volumes.get(part)
        if path is None:
            there = [*self.volumes, *([SEGMENTATION] if self.segmentation else [])]
            raise InputError(
                f"Case {self.id}: no {part} in {self.folder}; expected {self.layout.file_name(self.id, part)}, "
                f"found {', '.join(there)}."
            )
        return path


def source_files(case):
    """What tells the images of a `Case` from others of its name: {modality: [file's name, bytes, time in ns]}.

    Raises:
        InputError: when one of them is gone.
    """
    return {modality: [path.name, *size_and_time(path, case_id=case.id)] for modality, path in case.volumes.items()}


def size_and_time(path, *, case_id):
    """The bytes of a case's file, and when it was changed, ns. Raises `InputError` when it is gone."""
    try:
        stat = path.stat()
    except OSError as error:
        raise InputError(f"Case {case_id}: {path} could not be read: {error.strerror}.") from error
    return stat.st_size, stat.st_mtime_ns


def patient_of(case_id):
    """The patient, where several scans of one are numbered.

    >>> patient_of("BraTS-GLI-00005-101"), patient_of("Brats18_TCIA02_377_1"), patient_of("BraTS20_Training_001")
    ('BraTS-GLI-00005', 'Brats18_TCIA02_377', 'BraTS20_Training_001')
    """
    match = _SCAN.fullmatch(case_id)
    return match[1] or match[2] if match else case_id
