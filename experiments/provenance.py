"""What every results file says of its origin: the commit, the versions, the machine."""

import json
import platform
from importlib.metadata import version

from brats_tf import __version__
from brats_tf.errors import InputError
from brats_tf.runs.record import git_commit
from brats_tf.runtime.system import machine
from brats_tf.training.callbacks import LIBRARIES


def provenance():
    """{"commit", "versions", "machine"} as JSON can hold it; a commit with `+` had changed files."""
    versions = {"brats_tf": __version__, "python": platform.python_version()}
    versions |= {name: version(name) for name in LIBRARIES}
    return {"commit": git_commit(), "versions": versions, "machine": machine()}


def continued(path, facts):
    """The `runs` of a results file that is to be continued; none where there is no file.

    Raises:
        InputError: when it was measured with other settings than `facts`, or does not say with which.
    """
    if not path.is_file():
        return []
    before = json.loads(path.read_text())
    others = [name for name, value in facts.items() if before.get(name) != value]
    if others:
        received = ", ".join(f"{name} {facts[name]}, there {before.get(name, 'not said')}" for name in others)
        raise InputError(
            f"{path} must be of the same settings to be continued: name another one with --name, or delete it. "
            f"Received: {received}."
        )
    return before["runs"]
