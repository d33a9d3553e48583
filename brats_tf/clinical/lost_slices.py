"""Files that were slices and cannot be read any more: which series may lack them."""

import re
import warnings
from collections import defaultdict


def should_be_an_image(header):
    """Whether a header without an image's tags is of an image, or does not say what it is of, and so was cut short."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind = getattr(header, "file_meta", {}).get("MediaStorageSOPClassUID") or header.get("SOPClassUID")
        return not kind or "Image Storage" in kind.name


def lost_among(others, groups):
    """Those of `others`, files that are no DICOM, that lie beside slices and are called as these are.

    They have the slices' ending or, where these have none, their name up to its digits.

    Args:
        others: paths.
        groups: {UID of a series: [(path, header)]}.
    """
    patterns = defaultdict(set)
    for files in groups.values():
        for path, _ in files:
            patterns[path.parent].add(_pattern(path))
    return [path for path in others if _pattern(path) in patterns[path.parent]]


def missing_in(groups, damaged):
    """{UID of a series: [path]} of the damaged files that may be slices of it.

    A file whose header still names its series is of that one; another is of the series whose slices lie in its folder,
    where these are of one series alone.

    Args:
        groups: {UID of a series: [(path, header)]}.
        damaged: {path: (clause, UID of its series or None)}.
    """
    series_in, missing = defaultdict(set), defaultdict(list)
    for uid, files in groups.items():
        for path, _ in files:
            series_in[path.parent].add(uid)
    for path, (_, known) in damaged.items():
        there = {known} if known else series_in[path.parent]
        if len(there) == 1:
            missing[next(iter(there))].append(path)
    return missing


def _pattern(path):
    return path.suffix.lower() or re.sub(r"\d+", "#", path.name)
