"""Which series is which modality: from the words of its description and the times of its sequence, with the reason.

Where words and times do not agree, two series fit one modality, or nothing fits, a sentence says so; nothing is
guessed.
"""

import itertools
import re
from dataclasses import dataclass

from brats_tf.clinical.series import Series
from brats_tf.data.layouts import parse
from brats_tf.errors import InputError
from brats_tf.regions import MODALITIES

# Words of descriptions and protocol names, as vendors and technicians write them; each is matched as a whole word.
FLAIR = "flair tirm darkfluid dark-fluid t2f t2flair".split()
T1 = "t1 t1w t1n mprage bravo spgr fspgr tfe vibe t1ce t1c t1gd t1km t1post".split()
T2 = "t2 t2w".split()
AGENTS = (
    *"dotarem clariscan gadovist gadavist prohance multihance magnevist".split(),
    *"omniscan primovist eovist vueway elucirem".split(),
)
CONTRAST = (*"ce t1ce t1c gd t1gd gado gad km t1km post t1post contrast postcontrast +c c+ kontrast".split(), *AGENTS)
NO_CONTRAST = "pre native nativ noncontrast non-contrast no-contrast ohne without precontrast".split()
NOT = ("no", "non", "wo", "w/o")  # Directly before a word of `CONTRAST`.
OTHERS = (
    "dwi adc epi dti diff diffusion trace tracew swi swan venbold perf perfusion dsc dce asl tof angio mra mip minip "
    "loc localizer localiser scout survey aahead calib calibration fieldmap bold fmri mrs spectro sub subtraction "
    "t2star t2* hemo haemo flash2d medic rbv cbv cbf mtt ttp fa screenshot phase pd"
).split()
# How an agent begins that was not given, or is not known.
_NOT_GIVEN = (
    *"no non none not n nein 0 without ohne wo w/o n/a na nil n.a. unknown unbekannt".split(),
    *"kein keine keiner keines keins".split(),
)
_SALT_WATER = {"nacl", "saline", "sodium"}  # No agent.
_BESIDE = re.compile(r"[\d.,%+&/-]*(ml|cc|mg)?|chloride|solution|flush|only|nur|bolus|iv|and|und")  # Nor these.
# Before or after a treatment, not contrast.
_TREATMENT = (
    r"(?:op|oper\w*|surg\w*|resect\w*|rt\w?|rct|radiat\w*|radio[tcs]\w*|irradi\w*|chemo\w*|treat\w*|therap\w*|biops\w*"
    r"|crani|craniot\w*|craniec\w*|craniop\w*|tmz)\b"
)
_WORD = re.compile(rf"(?:pre|post)[-_ ]?{_TREATMENT}|t2\*|\+c\b|\bc\+|dark[-_ ]fluid|non?[-_ ]contrast|w/o\b|[a-z0-9]+")
# Of the whole examination: it says nothing.
_AND = r"( and | & | or |[ /+]+)"
_BOTH = re.compile(
    rf"\b((with|w){_AND}(without|wo|w/o)|(without|wo|w/o){_AND}(with|w))\b( (contrast|kontrast|gd|gad|gado|km)\b)?"
)


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
        named: {modality: path ending of its folder or file}, where a person has chosen; tags then decide nothing.

    Returns:
        ({modality: `Choice`} of those that are there, list of `Choice` of those left out).

    Raises:
        InputError: when two series fit one modality, or a named one is not there.
    """
    keys = {series.patient for series in found if series.patient}
    if len(keys) > 1:
        raise InputError(
            f"Patient {patient}: the folder must hold one patient; received series of {len(keys)} patients."
        )
    if named:
        return {modality: _named(found, modality, place, patient) for modality, place in named.items()}, []
    choices = [_choose(series) for series in found]
    left_out = [one for one in choices if not one.modality]
    chosen = {}
    for modality in MODALITIES:
        fitting = [one for one in choices if one.modality == modality]
        if len(fitting) > 1:
            raise InputError(
                f"Patient {patient}: one series must show {modality}; received {len(fitting)}: "
                f"{'; '.join(f'{one.series.name} ({one.reason})' for one in fitting)}. Choose with --series-list."
            )
        if fitting:
            chosen[modality] = fitting[0]
    return chosen, left_out


def _named(found, modality, place, patient):
    fitting = [one for one in found if any(_ends_with(path, place) for path in (one.files[0], one.files[0].parent))]
    if len(fitting) != 1:
        raise InputError(
            f"Patient {patient}: {place!r}, named for {modality}, must be the folder or file of one series; received "
            f"{len(fitting)} such series."
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
    said = [_words(str(tags.get(name, ""))) for name in ("SeriesDescription", "ProtocolName")]
    words = [word for part in said for word in part]
    other = [word for word in words if word in OTHERS]
    if other:
        return Choice(series, None, f"{other[0]!r} in its description is of none of the four modalities")
    # A protocol is often called after the whole examination: of contrast it tells what the description leaves open, and
    # nothing where it tells both.
    description, protocol = said
    if _says_without(description) or _says_with(description) or (_says_without(protocol) and _says_with(protocol)):
        return _by_words_and_times(series, words, description, "description")
    return _by_words_and_times(series, words, protocol, "protocol")


def _by_file_name(series):
    path = series.files[0]
    _, part, _ = parse(path.name, path.parent.name)
    words = _words(path.name)
    if part in MODALITIES:
        before = [first for first, second in itertools.pairwise(words) if second == part][-1:]
        said = f" after {before[0]!r}" if part == "t1" and before and before[0] in CONTRAST else ""
        return Choice(series, "t1ce" if said else part, f"its name ends as BraTS names {part}{said}")
    if any(word in ("seg", "mask", "brain", "label", *OTHERS) for word in words):
        return Choice(series, None, "its name is of none of the four modalities")
    kind, reason = _kind(words)
    return Choice(series, kind and _with_contrast(kind, words, ""), reason or "its name tells no modality")


def _by_words_and_times(series, words, about_contrast, source):
    kind, reason = _kind(words)
    by_times, times = _kind_by_times(series.tags)
    if kind and by_times and kind != by_times:
        return Choice(series, None, f"{reason}, but {times}, as {by_times} has")
    if not (kind or by_times):
        return Choice(series, None, "neither its description nor its times tell a modality")
    agent = _agent(str(series.tags.get("ContrastBolusAgent", "")))
    without, given = _says_without(about_contrast), _says_with(about_contrast)
    if without and (agent or given) and (kind or by_times) == "t1":
        other = "an agent is named" if agent else f"also {given!r}"
        return Choice(series, None, f"its {source} says {without!r}, but {other}")
    modality = _with_contrast(kind or by_times, about_contrast, agent)
    because = [part for part in (reason, times) if part]
    if modality in ("t1", "t1ce"):
        said = "an agent is named" if agent else f"its {source} says so"
        because.append(f"contrast: {said}" if modality == "t1ce" else "no contrast is named")
    return Choice(series, modality, ", ".join(because))


def _agent(text):
    """The agent that a header names, "" where it names none.

    >>> _agent("NaCl 20 ml"), _agent("no Gadovist"), _agent("Saline, Gadovist 7 ml")
    ('', '', 'saline gadovist 7 ml')
    """
    words = [word for word in re.split(r"[\s,;:]+", text.strip().lower()) if word.strip("-?")]
    if not words or words[0] in _NOT_GIVEN:
        return ""
    others = [word for word in words if word not in _SALT_WATER]
    if len(others) < len(words) and all(map(_BESIDE.fullmatch, others)):
        return ""
    return " ".join(words)


def _kind(words):
    """(flair, t1 or t2, or None, and the reason) by words; a "T1 FLAIR" is left to the times."""
    if set(words) & set(FLAIR) and set(words) & set(T1):
        return None, ""
    for kind, known in (("flair", FLAIR), ("t1", T1), ("t2", T2)):
        said = [word for word in words if word in known]
        if said:
            return kind, f"its description says {said[0]!r}"
    return None, ""


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
    return "t1ce" if agent or (_says_with(words) and not _says_without(words)) else "t1"


def _says_with(words):
    """The first word that tells of contrast and is not denied, "" where there is none."""
    denied = (*NOT, *NO_CONTRAST)
    pairs = zip(["", *words], words, strict=False)
    return next((word for before, word in pairs if word in CONTRAST and before not in denied), "")


def _says_without(words):
    """The words that deny contrast, "" where none do."""
    denied = (f"{first} {second}" for first, second in itertools.pairwise(words) if first in NOT and second in CONTRAST)
    return next(denied, next((word for word in words if word in NO_CONTRAST), ""))


def _words(text):
    """The words of a description, lower case.

    >>> _words("t1_mprage_sag+C (Gd)")
    ['t1', 'mprage', 'sag', '+c', 'gd']
    """
    plain = _BOTH.sub(" ", text.lower().replace("_", " "))
    return [word.replace("_", "-").replace(" ", "-") for word in _WORD.findall(plain)]
