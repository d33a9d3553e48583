"""Facts at the bottom, parts above them, runs above those, the front door on top: imports only point down."""

import ast
import sys

import pytest
from conftest import REPOSITORY

# Neighbours on a floor do not import each other.
FLOORS = (
    {"errors", "__init__", "data.__init__", "models.__init__"},
    {"regions", "exits", "screen", "files", "empty_rules", "measuring", "page_parts"},
    {"curves", "side_by_side"},
    {
        "presets",
        "splits",
        "data.layouts",
        "data.nifti",
        "data.transforms",
        "data.operations",
        "metrics",
        "losses",
        "aggregates",
        "records",
        "checkpoints",
        "devices",
        "run_record",
        "averaging",
        "learning_rate",
    },
    {
        "allowed",
        "windows",
        "lesions",
        "data.lists",
        "data.volumes",
        "data.augment",
        "models.blocks",
        "models.remat",
        "models.pyramid",
        "models.resnet",
    },
    {
        "config",
        "data.cases",
        "data.preparation",
        "data.pipeline",
        "models.interslice",
        "models.backbones",
        "models.costs",
        "scores",
        "postprocessing",
        "atlas",
    },
    {"data.phantom", "data.store", "models.decoders", "models.weights", "models.state_dict"},
    {"models.embedding", "models.albunet", "models.torchvision"},
    {"models.networks"},
    {"runs", "preparing", "pictures"},
    {"callbacks", "members", "trainer", "runs_table"},
    {"validation", "watching"},
    {"jobs"},
    {"training", "inference", "evaluation", "export", "listing", "census", "submission"},
    {"comparison", "figures", "report_sections", "sweeps"},
    {"report"},
    {"bench_peers", "bench_twin"},
    {"demo", "bench", "bench_augmentation", "bench_windows", "bench_training"},
    {"bench_data", "given"},
    {"options"},
    {"commands"},
    {"scoring"},
    {"cli"},
    {"__main__"},
)
# What may be imported from outside, by the lowest floor or the room that may; everything else is the stdlib or NumPy.
ONLY_IN = {
    "tensorflow": {
        "data.operations",
        "data.augment",
        "data.pipeline",
        "checkpoints",
        "devices",
        "trainer",
        "training",
        "runs",
        "members",
        "watching",
        "export",
        "screen",
    },
    "tensorboard": {"watching"},
    "nibabel": {"submission", "data.nifti", "data.volumes", "data.transforms", "data.preparation", "data.phantom"},
    "isal": {"data.nifti", "data.store"},
    "matplotlib": {"pictures", "atlas"},
    "monai": {"bench_peers", "bench_windows"},
    "torch": {"bench_peers", "bench_twin", "bench_windows"},
    "torchvision": {"bench_twin", "bench_windows"},
    "batchgenerators": {"bench_peers"},
    "scipy": {"data.transforms", "data.phantom", "metrics", "lesions", "aggregates", "postprocessing"},
    "segmentation_models": {"models.backbones"},
    "efficientnet": {"models.backbones"},
}
PACKAGE = REPOSITORY / "brats_tf"
ROOMS = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


def imports(path):
    """The modules that a file imports, at any depth in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor(room):
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def test_every_room_has_one_floor():
    assert sorted(ROOMS) == sorted(room for rooms in FLOORS for room in rooms)


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_imports_point_down(room):
    for module in imports(ROOMS[room]):
        imported = module.removeprefix("brats_tf.")
        if module != imported and imported in ROOMS:
            assert floor(imported) < floor(room), f"{room} imports {imported}"


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_only_some_rooms_know_a_library(room):
    for module in imports(ROOMS[room]):
        library = module.split(".")[0]
        assert room in ONLY_IN.get(library, {room}), f"{room} imports {library}"


def test_networks_and_losses_know_keras_alone():
    for room, path in ROOMS.items():
        if room.startswith("models.") or room == "losses":
            outside = {module.split(".")[0] for module in imports(path)} - {"brats_tf", *sys.stdlib_module_names}
            # Classifiers come from two more packages, imported only when one of theirs is built.
            more = {
                "models.backbones": set(ONLY_IN),
                "models.torchvision": {"numpy"},
                "models.state_dict": {"numpy"},
            }.get(room, set())  # Reads a file.
            assert outside <= {"keras", *more} - {"tensorflow"}, room


def test_nothing_loads_a_pickle():
    for room, path in ROOMS.items():
        source = path.read_text()
        assert not {"pickle", "dill", "joblib"} & {module.split(".")[0] for module in imports(path)}, room
        assert "allow_pickle" not in source, room
        assert "safe_mode=False" not in source, room


def test_files_and_functions_stay_small():
    lengths = []
    for path in ROOMS.values():
        assert len(path.read_text().splitlines()) <= 250, path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                lengths.append(node.end_lineno - node.lineno + 1)
    assert sorted(lengths)[int(0.9 * len(lengths))] <= 35
