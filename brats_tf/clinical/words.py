"""What the words of descriptions, protocols and file names say: of the sequence, and of a contrast agent."""

import itertools
import re

# Words of descriptions and protocol names, as vendors and technicians write them; each is matched as a whole word.
FLAIR = "flair tirm darkfluid dark-fluid t2f t2flair".split()
T1 = "t1 t1w t1n mprage bravo spgr fspgr tfe vibe t1ce t1c t1gd t1km t1post".split()
T2 = "t2 t2w".split()
AGENTS = (
    *"dotarem clariscan gadovist gadavist prohance multihance magnevist".split(),
    *"omniscan primovist eovist vueway elucirem gadolinium gadobutrol gadoterate gadoteridol gadobenate".split(),
)
CONTRAST = (
    *"ce t1ce t1c gd t1gd gado gad km t1km post t1post contrast postcontrast +c c+ kontrast".split(),
    *"postgd postgad postgado postgadolinium postkm postcon postce postkontrast".split(),
    *AGENTS,
)
NO_CONTRAST = (
    *"pre native nativ noncontrast non-contrast no-contrast ohne without precontrast".split(),
    *"pregd pregad pregado pregadolinium prekm precon prece prekontrast".split(),
)
NOT = ("no", "non", "not", "wo", "w/o", "before", "prior", "vor")  # Before a word of `CONTRAST`.
_BETWEEN = ("iv", "i", "v", "intravenous", "any", "the", "to")  # Two such words, where it says nothing.
# Beside which a word of contrast in a file's name means the image, and not a person or a study.
_PLANES = "ax axial tra trans sag sagittal cor coronal se tse fse fs fatsat 2d 3d iso".split()
OTHERS = (
    "dwi adc epi dti diff diffusion trace tracew swi swan venbold perf perfusion dsc dce asl tof angio mra mip minip "
    "loc localizer localiser scout survey aahead calib calibration fieldmap bold fmri mrs spectro sub subtraction "
    "t2star t2* hemo haemo flash2d medic rbv cbv cbf mtt ttp fa screenshot phase pd"
).split()
NO_IMAGES = ("seg", "mask", "label", *OTHERS)  # In a file's name.
# Of `OTHERS`, those that are also words of a study or a person: "sub_01_t1", "phase_2_P01_t1".
MAY_BE_A_NAME = "sub phase trace survey scout medic pd fa hemo loc".split()
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
    rf"\b((with|w){_AND}(without|wo|w/o)|(without|wo|w/o){_AND}(with|w))\b"
    r"( (iv )?(contrast|kontrast|gd|gad|gado|km)\b)?"
)


def words_of(text):
    """The words of a description, lower case.

    >>> words_of("t1_mprage_sag+C (Gd)")
    ['t1', 'mprage', 'sag', '+c', 'gd']
    """
    plain = _BOTH.sub(" ", text.lower().replace("_", " "))
    return [word.replace("_", "-").replace(" ", "-") for word in _WORD.findall(plain)]


def kind_of(words):
    """(flair, t1 or t2, or None, and the reason) by words; a "T1 FLAIR" is left to the times."""
    if set(words) & set(FLAIR) and set(words) & set(T1):
        return None, ""
    for kind, known in (("flair", FLAIR), ("t1", T1), ("t2", T2)):
        said = [word for word in words if word in known]
        if said:
            return kind, f"its description says {said[0]!r}"
    return None, ""


def says_with(words):
    """The first word that tells of contrast and is not denied, "" where there is none."""
    denied, words = (*NOT, *NO_CONTRAST), _without_fillers(words)
    pairs = zip(["", *words], words, strict=False)
    return next((word for before, word in pairs if word in CONTRAST and before not in denied), "")


def says_without(words):
    """The words that deny contrast, "" where none do."""
    words = _without_fillers(words)
    denied = (f"{first} {second}" for first, second in itertools.pairwise(words) if first in NOT and second in CONTRAST)
    return next(denied, next((word for word in words if word in NO_CONTRAST), ""))


def just_before(words, last):
    """The words before `last` that tell what an image shows, as far back as all do.

    >>> just_before(words_of("Study_Post_001_GD_AX_T1"), "t1")
    ['gd', 'ax']
    """
    known = {*T1, *T2, *FLAIR, *CONTRAST, *NO_CONTRAST, *NOT, *_BETWEEN, *_PLANES}
    before = words[: words.index(last)][::-1]
    return [*itertools.takewhile(known.__contains__, before)][::-1]


def _without_fillers(words):
    return [word for word in words if word not in _BETWEEN]


def agent_in(text):
    """The agent that a header names, "" where it names none.

    >>> agent_in("NaCl 20 ml"), agent_in("no Gadovist"), agent_in("Saline, Gadovist 7 ml")
    ('', '', 'saline gadovist 7 ml')
    """
    words = [word for word in re.split(r"[\s,;:]+", text.strip().lower()) if word.strip("-?")]
    if not words or words[0] in _NOT_GIVEN:
        return ""
    others = [word for word in words if word not in _SALT_WATER]
    if len(others) < len(words) and all(map(_BESIDE.fullmatch, others)):
        return ""
    return " ".join(words)
