"""Notes on cases, collected over a data set, as lines of the log."""

import logging

log = logging.getLogger(__name__)
NAMED_CASES = 5  # Case ids named in a note; more are counted.


def misread(cases, failures):
    """Where the labels of one case show that an ambiguous layout was misread: {id: sentence} of the others in it.

    `failures` is {case id: sentence}.
    """
    ambiguous = {
        case.layout.note for case in cases if case.layout.note and case.layout.note in failures.get(case.id, "")
    }
    return {
        case.id: f"Case {case.id}: labels of other cases do not fit its layout: {case.layout.note}."
        for case in cases
        if case.layout.note in ambiguous and case.id not in failures
    }


def leave_out_misread(cases, read, failures):
    """Moves what `misread` tells of from `read`, {case id: anything}, to the list `failures` of (case id, sentence)."""
    for case_id, sentence in misread(cases, dict(failures)).items():
        log.info(f"Left out: {sentence}")
        failures.append((case_id, sentence))
        del read[case_id]


def log_notes(notes):
    """Logs {note: case ids}, one line each."""
    for note, ids in notes.items():
        log.info(f"Note: {note}: {name_some(sorted(ids))}.")


def log_skipped(skipped):
    """Logs what `find_cases` skipped, one line each."""
    for path, reason in skipped:
        log.info(f"Skipped {path}: {reason}.")


def name_some(names):
    """The first of some names in words; more are counted."""
    more = len(names) - NAMED_CASES
    return ", ".join(names[:NAMED_CASES]) + (f" and {more} more" if more > 0 else "")
