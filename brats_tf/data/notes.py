"""Notes on the geometry of cases, collected over a data set."""

import logging

log = logging.getLogger(__name__)
NAMED_CASES = 5  # Case ids named in a note; more are counted.


def log_notes(notes):
    """Logs {note: case ids}, one line each."""
    for note, ids in notes.items():
        more = len(ids) - NAMED_CASES
        names = ", ".join(sorted(ids)[:NAMED_CASES]) + (f" and {more} more" if more > 0 else "")
        log.info(f"Note: {note}: {names}.")
