"""Whether networks are traced in a form of this machine's, or in one for all runtimes."""

from contextlib import contextmanager
from contextvars import ContextVar

_ONE_FORM = ContextVar("one_form", default=False)


@contextmanager
def one_form():
    """Within it, networks are traced in one form for all runtimes, without a pass of TensorFlow's own or a `cond`."""
    token = _ONE_FORM.set(True)
    try:
        yield
    finally:
        _ONE_FORM.reset(token)


def is_one_form():
    """Whether networks are traced in one form for all runtimes."""
    return _ONE_FORM.get()
