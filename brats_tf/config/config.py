"""A run as one frozen value: all settings, section by section, saved as JSON beside the weights."""

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brats_tf.config.checks import check_together, fitting, settled
from brats_tf.config.fields import Setting, check_section, setting, settings_of
from brats_tf.config.presets import DEFAULT_PRESET, PRESETS, modalities_of
from brats_tf.config.settings import (
    SEED_LIMIT,
    AlbuNetSettings,
    ComputeSettings,
    DataSettings,
    EmbeddingSettings,
    InferenceSettings,
    PlusSettings,
    TrainingSettings,
)
from brats_tf.errors import InputError
from brats_tf.regions import MODALITIES
from brats_tf.runtime.files import read_json, write_json

CONFIG_FILE = "config.json"
NETWORKS = {
    "embedding": EmbeddingSettings,
    "embedding_authors": EmbeddingSettings,
    "embedding_plus": PlusSettings,
    "albunet": AlbuNetSettings,
}
SECTIONS = {
    "data": DataSettings,
    "training": TrainingSettings,
    "inference": InferenceSettings,
    "compute": ComputeSettings,
}


@dataclass(frozen=True)
class Config:
    """Everything that decides what a run computes.

    Build one with `Config.from_preset`, change it with `replace`, read the one of a run with `load`.
    """

    data: DataSettings
    network: EmbeddingSettings | PlusSettings | AlbuNetSettings = EmbeddingSettings()
    training: TrainingSettings = TrainingSettings()
    inference: InferenceSettings = InferenceSettings()
    compute: ComputeSettings = ComputeSettings()
    preset: str = DEFAULT_PRESET
    seed: int = setting(0, "random seed of weights, order and augmentation", minimum=0, maximum=SEED_LIMIT)

    def __post_init__(self) -> None:
        check_section(self)
        check_together(self)

    @classmethod
    def from_preset(cls, preset: str, **changes: Any) -> "Config":
        """A preset's values with `changes` on top, by the names of the settings; None does not count.

        >>> Config.from_preset("embedding", modalities=("flair",), epochs=5).training.epochs
        5

        Raises:
            InputError: on an unknown preset, an unknown setting or a value that is not allowed.
        """
        if preset not in tuple(PRESETS):
            raise InputError(f"`preset` must be one of {', '.join(PRESETS)}. Received: {preset!r}.")
        given = {name: value for name, value in changes.items() if value is not None}
        return cls(**_sections(settled(PRESETS[preset] | given, given)), preset=preset)

    def replace(self, **changes: Any) -> "Config":
        """The same with other values, by the names of the settings.

        Raises:
            InputError: on an unknown setting or a value that is not allowed.
        """
        flat = {name: value for _, name, value in self.items()}
        values = settled(flat | {"network": self.network.name} | changes, changes)
        return type(self)(**_sections(values), preset=self.preset)

    def items(self) -> list[tuple[str, str, Any]]:
        """(section, setting, value) of all settings; the seed's section is ""."""
        sections = {name: getattr(self, name) for name in ("data", "network", "training", "inference", "compute")}
        rows = [
            (section, name, getattr(values, name))
            for section, values in sections.items()
            for name in settings_of(type(values))
            if (section, name) != ("network", "name")
        ]
        return [*rows, ("", "seed", self.seed)]

    @classmethod
    def load(cls, path: str | Path) -> "Config":
        """Reads a config from its file, or from the folder of a run. Raises `InputError` when it is none."""
        of_a_run = Path(path).suffix != ".json"
        path = Path(path) / CONFIG_FILE if of_a_run else Path(path)
        try:
            content = read_json(path)
        except FileNotFoundError:
            if of_a_run:
                raise InputError(
                    f"{path.parent} holds no trained network: {CONFIG_FILE} is missing. Train it first, or "
                    "choose trained networks with --networks."
                ) from None
            raise InputError(f"The configuration {path} does not exist.") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is not readable JSON: {error}.") from None
        try:
            return cls.from_dict(content)
        except InputError as error:
            remedy = " A run of another version is used with that version, or trained again."
            raise InputError(f"{path}: {error}{remedy if path.name == CONFIG_FILE else ''}") from None

    @classmethod
    def from_dict(cls, content: Any) -> "Config":
        """The config that `to_dict` made a nested dictionary of, or as its preset. Raises `InputError`."""
        if not isinstance(content, dict):
            raise InputError(f"A configuration must be a JSON object. Received: {type(content).__name__}.")
        _refuse_unknown(content, (*SECTIONS, "network", "preset", "seed"))
        preset = content.get("preset", DEFAULT_PRESET)
        if preset not in tuple(PRESETS):
            raise InputError(f"`preset` must be one of {', '.join(PRESETS)}. Received: {preset!r}.")
        base: dict[str, Any] = {"network": "embedding"} | PRESETS[preset]
        flat: dict[str, Any] = {"seed": content.get("seed", 0)}
        for section in (*SECTIONS, "network"):
            values = content.get(section, {})
            if not isinstance(values, dict):
                raise InputError(f"`{section}` must be a JSON object. Received: {values!r}.")
            kind = SECTIONS.get(section) or _network_kind(values.get("name", base["network"]))
            _refuse_unknown(values, settings_of(kind))
            flat |= {"network" if name == "name" else name: value for name, value in values.items()}
        return cls(**_sections(fitting(base | flat, flat)), preset=preset)

    def to_dict(self) -> dict[str, Any]:
        """All settings as JSON can hold them, nested by section."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def save(self, run: str | Path) -> None:
        """Writes `config.json` into the folder of a run."""
        write_json(Path(run) / CONFIG_FILE, self.to_dict())

    @property
    def run_name(self) -> str:
        """The name of the run's folder: preset, fold if there is one, modalities.

        >>> Config.from_preset("embedding", modalities=("flair",), folds=5, fold=0).run_name
        'embedding-fold0of5-flair'
        """
        data = self.data
        return self.named(self.preset + (f"-fold{data.fold}of{data.folds}" if data.folds else ""))

    def named(self, name: str | None) -> str:
        """The name of the run's folder where its first part is another one; None for `run_name`.

        Raises:
            InputError: when it cannot be a file's name.
        """
        if name is None:
            return self.run_name
        if not re.fullmatch(r"\w[\w.+=-]{,99}", name):
            raise InputError(f"`name` must be letters, digits and `_.+=-`, as a folder has. Received: {name!r}.")
        return "-".join((name, *self.data.modalities))

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """What the network takes: (H, W, D, C)."""
        return (*(self.data.patch_size or self.data.crop), len(self.data.modalities))

    @property
    def window_stride(self) -> tuple[int, int, int] | None:
        """Distance between neighbouring windows, (H, W, D); None for networks that see whole crops."""
        patch = self.data.patch_size
        if self.inference.window_stride or patch is None:
            return self.inference.window_stride
        height, width, depth = (max(1, size // 2) for size in patch)
        return height, width, depth

    def preprocessing(self) -> dict[str, Any]:
        """The keyword arguments of `preprocess.prepare_case` that decide how the network sees a whole case."""
        data = self.data
        return {
            "modalities": data.modalities,
            "crop": None if data.patch_size else data.crop,
            "spacing_mm": data.spacing_mm,
        }

    def network_settings(self) -> dict[str, Any]:
        """The keyword arguments of the network's builder."""
        others = ("name", "weights", "classifier_rate")
        names = [name for name in settings_of(type(self.network)) if name not in others]
        return {"shape": self.input_shape} | {name: getattr(self.network, name) for name in names}


def all_settings() -> dict[str, tuple[str, Setting]]:
    """{name: (section, setting)} of every setting of every kind of network; names are unique."""
    found = {"seed": ("", settings_of(Config)["seed"])}
    kinds = [*SECTIONS.items(), *(("network", kind) for kind in dict.fromkeys(NETWORKS.values()))]
    for section, kind in kinds:
        for name, one in settings_of(kind).items():
            if name != "name":
                found.setdefault(name, (section, one))
    return found


def run_names(preset: str, name: str | None = None) -> tuple[str, ...]:
    """The names of the runs that a preset trains, in order; see `Config.named`."""
    return tuple(Config.from_preset(preset, modalities=names).named(name) for names in modalities_of(preset))


def _sections(flat: dict[str, Any]) -> dict[str, Any]:
    """Sorts values by the names of their settings into sections."""
    flat = dict(flat)
    network = flat.pop("network", "embedding")
    kinds = SECTIONS | {"network": _network_kind(network)}
    if not flat.get("modalities"):
        known = ", ".join(MODALITIES)
        raise InputError(f"`modalities` must name what the network sees: {known} (--modality). Received: none.")
    sections: dict[str, Any] = {
        section: kind(**{name: flat.pop(name) for name in settings_of(kind) if name in flat}, **extra)
        for section, kind in kinds.items()
        for extra in [{"name": network} if section == "network" else {}]
    }
    if "seed" in flat:
        sections["seed"] = flat.pop("seed")
    for name, value in flat.items():
        if name in all_settings():
            raise InputError(f"The network {network} has no `{name}`. Received: {value}.")
    _refuse_unknown(flat, all_settings())
    return sections


def _network_kind(name: Any) -> type:
    if name not in tuple(NETWORKS):
        raise InputError(f"`network` must be one of {', '.join(NETWORKS)}. Received: {name!r}.")
    return NETWORKS[name]


def _refuse_unknown(values: Any, known: Any) -> None:
    unknown = sorted(str(name) for name in values if name not in known)
    if unknown:
        raise InputError(f"Unknown settings {', '.join(unknown)}. Known are: {', '.join(known)}.")
