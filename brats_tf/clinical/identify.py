"""Which series is which modality: from the words of its description and the times of its sequence, with the reason.

Where words and times do not agree, two series fit one modality, or nothing fits, a sentence says so; nothing is
guessed.
"""

import itertools
import re
from collections import Counter
from dataclasses import dataclass

from brats_tf.clinical.series import Series, of_one_person
from brats_tf.clinical.words import (
    MAY_BE_A_NAME,
    NO_IMAGES,
    OTHERS,
    agent_in,
    just_before,
    kind_of,
    says_with,
    says_without,
    words_of,
)
from brats_tf.data.layouts import parse
from brats_tf.errors import InputError
from brats_tf.regions import MODALITIES

# Of no use here; "sub" alone would be a subtraction, and "post" of a session no contrast.
_BIDS = re.compile(r"(?<![a-z0-9])(sub|ses|run)-[a-z0-9]+_", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    """What a series shows, and why: `modality` is None where it is none of the four."""

    series: Series
    modality: str | None
    reason: str


def identify(found, *, patient, named=None):
    """Chooses the series of each modality.

    Args:
        found: list of `Series`, as `read_series` returns.
        patient: its name in messages.
        named: {modality: path ending of its folder or of one of its files, or its number}, where a person has chosen;
            tags decide about the other series, for the other modalities.

    Returns:
        ({modality: `Choice`} of those that are there, list of `Choice` of those left out).

    Raises:
        InputError: when two series fit one modality, or a named one is not there or named twice.
    """
    if (persons := _persons(found)) > 1:
        raise InputError(f"Patient {patient}: the folder must hold one patient; received series of {persons} patients.")
    by_name = {modality: _named(found, modality, place, patient) for modality, place in (named or {}).items()}
    taken = [one.series for one in by_name.values()]
    if twice := next((one for number, one in enumerate(taken) if one in taken[:number]), None):
        both = " and ".join(modality for modality, one in by_name.items() if one.series is twice)
        raise InputError(f"Patient {patient}: {twice.name} must be named for one modality; received {both}.")
    choices = [_choose(series) for series in found if not any(series is one for one in taken)]
    if named:
        choices = _beside_a_list(choices, by_name)
    left_out = [one for one in choices if not one.modality]
    chosen = {}
    for modality in MODALITIES:
        fitting = [by_name[modality]] if modality in by_name else [one for one in choices if one.modality == modality]
        if len(fitting) > 1:
            raise InputError(
                f"Patient {patient}: one series must show {modality}; received {len(fitting)}: "
                f"{'; '.join(f'{one.series.name} ({one.reason})' for one in fitting)}. Choose with --series-list."
            )
        if fitting:
            chosen[modality] = fitting[0]
    return chosen, left_out


def _beside_a_list(choices, by_name):
    """The choices that headers tell where a person has named others.

    What the list does not settle is left out; else a person would have to settle all.
    """
    count = Counter(one.modality for one in choices)

    def left(one):
        if one.modality in by_name:
            return Choice(one.series, None, f"--series-list names another for {one.modality}")
        if one.modality and count[one.modality] > 1:
            return Choice(one.series, None, f"several show {one.modality}, of which --series-list names none")
        return one

    return [left(one) for one in choices]


def _persons(found):
    """How many persons the headers tell of. One that names nobody, as NIfTI files do, may be of any."""
    known = [series for series in found if any(series.person)]
    alone = []
    for series in known:
        if not any(of_one_person(series, one) for one in alone):
            alone.append(series)
    conflict = not all(of_one_person(one, other) for one, other in itertools.combinations(known, 2))
    return max(2, len(alone)) if conflict else 1


def _named(found, modality, place, patient):
    number = re.sub(r"^series\s*", "", place, flags=re.IGNORECASE)
    fitting = [
        one
        for one in found
        if any(_ends_with(path, place) for file in (*one.files, *one.copies) for path in (file, file.parent))
    ]
    fitting = fitting or [one for one in found if str(one.tags.get("SeriesNumber")) == number]
    if len(fitting) != 1:
        raise InputError(
            f"Patient {patient}: {place!r}, named for {modality}, must be the folder or file of one series, or its "
            f"number; received {len(fitting)} such series."
        )
    return Choice(fitting[0], modality, "named by --series-list")


def _ends_with(path, place):
    wanted = [part for part in place.replace("\\", "/").split("/") if part not in ("", ".")]
    return bool(wanted) and list(path.parts[-len(wanted) :]) == wanted


def _choose(series):
    if not series.is_dicom:
        return _by_file_name(series)
    tags = series.tags
    image_type = tags.get("ImageType", ())  # A string where it has one value.
    image_type = {str(part).upper() for part in ([image_type] if isinstance(image_type, str) else image_type)}
    if tags.get("Modality", "MR") != "MR":
        return Choice(series, None, f"it is of modality {tags['Modality']}, not MR")
    if "LOCALIZER" in image_type:
        return Choice(series, None, "it is a localiser")
    if image_type & {"DERIVED", "SECONDARY"} and not image_type & {"MPR", "NORM", "DIS2D", "DIS3D"}:
        return Choice(series, None, "it is derived from other series")
    description, protocol = (words_of(str(tags.get(name, ""))) for name in ("SeriesDescription", "ProtocolName"))
    words = [*description, *protocol]
    # A protocol is often called after the whole examination: it counts where the description leaves something open.
    other = [(word, "description") for word in description if word in OTHERS]
    if not kind_of(description)[0]:
        other += [(word, "protocol") for word in protocol if word in OTHERS]
    if other:
        return Choice(series, None, "{!r} in its {} is of none of the four modalities".format(*other[0]))
    # Of contrast a protocol tells nothing where it tells both.
    if says_without(description) or says_with(description) or (says_without(protocol) and says_with(protocol)):
        return _by_words_and_times(series, words, description, "description")
    return _by_words_and_times(series, words, protocol, "protocol")


def _by_file_name(series):
    path = series.files[0]
    _, part, _ = parse(path.name, path.parent.name)
    words = words_of(_BIDS.sub("", path.name))
    if part in MODALITIES:
        others = [word for word in words if word in NO_IMAGES and word not in MAY_BE_A_NAME]
        if others:
            return Choice(series, None, f"its name says both {others[0]!r} and {part!r}")
        before = just_before(words, part) if part in words else []
        sequence, base = kind_of(before)[0], {"t1ce": "t1"}.get(part, part)
        point_in_time = len(before) == 1 and words.index(part) > 1  # "P01_T1_flair": an id is before it.
        if sequence not in (None, base) and (sequence, base) != ("t2", "flair") and not point_in_time:
            # Of an "AX_T1_FLAIR" the times would tell, which no name has.
            return Choice(series, None, f"its name says both {sequence!r} and {part!r}")
        given, denied = (says_with(before), says_without(before)) if part == "t1" else ("", "")
        if given and denied:
            return Choice(series, None, f"its name says {denied!r}, but also {given!r}")
        said = f" after {given!r}" if given else ""
        return Choice(series, "t1ce" if said else part, f"its name ends as BraTS names {part}{said}")
    if any(word in ("brain", *NO_IMAGES) for word in words):
        return Choice(series, None, "its name is of none of the four modalities")
    kind, reason = kind_of(words)
    return Choice(series, kind and _with_contrast(kind, words, ""), reason or "its name tells no modality")


def _by_words_and_times(series, words, about_contrast, source):
    kind, reason = kind_of(words)
    by_times, times = _kind_by_times(series.tags)
    if kind and by_times and kind != by_times:
        return Choice(series, None, f"{reason}, but {times}, as {by_times} has")
    if not (kind or by_times):
        return Choice(series, None, "neither its description nor its times tell a modality")
    agent = agent_in(str(series.tags.get("ContrastBolusAgent", "")))
    without, given = says_without(about_contrast), says_with(about_contrast)
    if without and (agent or given) and (kind or by_times) == "t1":
        other = "an agent is named" if agent else f"also {given!r}"
        return Choice(series, None, f"its {source} says {without!r}, but {other}")
    modality = _with_contrast(kind or by_times, about_contrast, agent)
    because = [part for part in (reason, times) if part]
    if modality in ("t1", "t1ce"):
        said = "an agent is named" if agent else f"its {source} says so"
        because.append(f"contrast: {said}" if modality == "t1ce" else "no contrast is named")
    return Choice(series, modality, ", ".join(because))


def _kind_by_times(tags):
    """The same by the times of the sequence, ms; None where they are not there or tell nothing."""
    try:
        echo, repetition = float(tags["EchoTime"]), float(tags["RepetitionTime"])
        inversion = float(tags.get("InversionTime") or 0)
    except (KeyError, TypeError, ValueError):
        return None, ""
    text = f"TE {echo:g}, TR {repetition:g}{f', TI {inversion:g}' if inversion else ''} ms"
    if inversion >= 1400 and repetition >= 4000:
        return ("flair", text) if echo >= 60 else (None, text)
    if echo >= 60 and repetition >= 1500 and not inversion:
        return "t2", text
    if echo < 35 and (repetition <= 1200 or inversion):
        return "t1", text
    return None, text


def _with_contrast(kind, words, agent):
    if kind != "t1":
        return kind
    return "t1ce" if agent or (says_with(words) and not says_without(words)) else "t1"
