"""Whether networks are traced in the form that is fastest here, or in one for other machines and runtimes."""

from contextlib import contextmanager
from contextvars import ContextVar

_ONE_FORM = ContextVar("one_form", default=False)
_PLAIN = ContextVar("plain_convolutions", default=False)


@contextmanager
def one_form():
    """Within it, networks are traced in one form for all runtimes, without a pass of TensorFlow's own or a `cond`."""
    with _set(_ONE_FORM), plain_convolutions():
        yield


@contextmanager
def plain_convolutions():
    """Within it, networks are traced for any machine with TensorFlow: see `winograd`."""
    with _set(_PLAIN):
        yield


@contextmanager
def _set(variable):
    token = variable.set(True)
    try:
        yield
    finally:
        variable.reset(token)


def is_one_form():
    """Whether networks are traced in one form for all runtimes."""
    return _ONE_FORM.get()


def has_plain_convolutions():
    """Whether networks are traced with plain convolutions."""
    return _PLAIN.get()
