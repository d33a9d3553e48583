"""`run.json` in a run's folder: what made it, how far it is, what it took; read and described without Keras."""

import hashlib
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from brats_tf.data.case import Case
from brats_tf.data.layouts import SEGMENTATION
from brats_tf.errors import InputError
from brats_tf.runs.files import RECORD_FILE
from brats_tf.runtime.files import read_json, sha256_of

TRAINING, FINISHED = "training", "finished"
_KINDS = {"status": str, "epochs": int, "settings": dict, "data": str, "validation": list}


def read_run_record(run: str | Path) -> dict[str, Any] | None:
    """The content of a run's `run.json`; None where there is none. Raises `InputError` when it is damaged."""
    path = Path(run) / RECORD_FILE
    try:
        record = read_json(path)
        check_kinds(record, _KINDS)
        if not all(isinstance(case, str) for case in record["validation"]):
            raise ValueError("`validation` must list ids of cases")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is no readable record of a run: {error}.") from None
    return record


def check_kinds(values: Any, kinds: dict[str, Any]) -> None:
    """Raises `ValueError` unless a JSON value is an object with these names, each of its kind; a number is no bool."""
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    for name, kind in kinds.items():
        value = values.get(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"`{name}` is missing or of another kind")


def data_hash(stored: Iterable[Any], validation: Iterable[Case] = (), modalities: Sequence[str] = ()) -> str:
    """A hash of what the network learns from: the cached cases, whose names carry their content's hash, in order.

    And of the files, of these modalities, of the cases that validate: they may choose the checkpoint or lower the rate.
    """
    names = [path.name for case in stored for path in sorted(case.paths)]
    parts = (*modalities, SEGMENTATION)
    names += [sha256_of(*dict.fromkeys(case.require(part) for part in parts)) for case in validation]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def git_commit() -> str | None:
    """The commit of this package's checkout, with `+` where files differ from it; None outside a checkout."""
    folder = Path(__file__).resolve().parents[2]
    git = shutil.which("git")
    if git is None or not (folder / ".git").exists():
        return None
    try:
        answers = [
            subprocess.run(  # noqa: S603
                [git, "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True
            )
            for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return answers[0].stdout.strip() + ("+" if answers[1].stdout.strip() else "")
