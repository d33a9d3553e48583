"""What every results file says of its origin: the commit, the versions, the machine."""

import platform
from importlib.metadata import version

from brats_tf import __version__
from brats_tf.runs.record import git_commit
from brats_tf.runtime.system import machine

LIBRARIES = ("tensorflow", "keras", "numpy")


def provenance():
    """{"commit", "versions", "machine"} as JSON can hold it; a commit with `+` had changed files."""
    versions = {"brats_tf": __version__, "python": platform.python_version()}
    versions |= {name: version(name) for name in LIBRARIES}
    return {"commit": git_commit(), "versions": versions, "machine": machine()}
