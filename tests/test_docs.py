"""What is written down, holds: commands, tables, docstrings, names."""

import ast
import re
import shlex
import subprocess
import sys

import keras
import pytest
from conftest import REPOSITORY

from brats_tf.cli.main import COMMANDS, parser

MORE_VARIABLES = (
    "PLANES=6 MEASURE=1 STORE=/s WORKERS=2 VERIFY=1 JSON=1 AUGMENTATION=plus SPACING=1 FOLD=0/5 HELD_OUT=1 SKIP_BAD=1 "
    "SCHEDULE=cosine WARM_UP=5 PLATEAU_ON=loss AVERAGE=ema PRECISION=bfloat16 REMAT=1 JIT=1 DEVICES=2 RESTART=1 "
    "MINUTES=5"
).split()
PAGES = ("README.md", "experiments/README.md", "CONTRIBUTING.md")
MAKEFILE = (REPOSITORY / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, flags=re.MULTILINE))


@pytest.mark.parametrize("page", PAGES)
def test_every_make_command_on_a_page_is_a_target(page):
    code = "".join(re.findall(r"`[^`]*`|```.*?```", (REPOSITORY / page).read_text(), re.S))
    named = set(re.findall(r"make (?:-k )?([a-z0-9-]+)", code))
    assert named <= TARGETS


@pytest.mark.parametrize("page", PAGES)
def test_every_link_on_a_page_leads_somewhere(page):
    folder = (REPOSITORY / page).parent
    links = re.findall(r"\]\((?!http)([^)#]+)\)", (REPOSITORY / page).read_text())
    assert [link for link in links if not (folder / link).exists()] == []


def test_make_alone_lists_the_targets():
    printed = subprocess.run(["make", "-s", "-C", REPOSITORY], capture_output=True, text=True, check=True).stdout
    for target in TARGETS - {"help"}:
        assert f"make {target}" in printed


def test_every_target_expands_to_a_command_that_the_program_takes(tmp_path):
    ready = tmp_path / "venv" / ".ready"
    ready.parent.mkdir()
    ready.touch()
    understood = set()
    for target in TARGETS - {"help", "setup"}:
        all_variables = "MOD=t1 DATA=/d EPOCHS=3 CROP=64x64x36 PRESET=plus WEIGHTS=none NETWORKS=t1,t2 BACKBONE=vgg16"
        for variables in ([], [*all_variables.split(), *MORE_VARIABLES]):
            arguments = ["make", "-n", "-C", REPOSITORY, target, f"VENV={ready.parent}", *variables]
            printed = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
            needs_more = not variables and target in ("train-modality", "cases")
            for line in printed.splitlines():
                program, *options = shlex.split(line)
                if program.endswith("/brats-tf") and not needs_more:
                    understood.add(parser().parse_args(options).command)
    assert understood == set(COMMANDS)


def test_the_makefile_passes_its_variables_on(tmp_path):
    (tmp_path / ".ready").touch()
    variables = "MOD=t2 DATA=/d RUNS=/r EPOCHS=3 CROP=64x64x36 WEIGHTS=none SEED=5 PRESET=plus".split()
    variables += ["BACKBONE=vgg16", *MORE_VARIABLES]
    command = ["make", "-n", "-C", REPOSITORY, "train-modality", f"VENV={tmp_path}", *variables]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    expected = (
        '--modality "t2" --data "/d" --runs "/r" --preset "plus" --crop "64x64x36" '
        '--backbone "vgg16" --planes "6" '
        '--weights "none" --epochs "3" --seed "5" --store "/s" --spacing-mm "1" --workers "2" --fold "0/5" '
        '--augmentation "plus" --schedule "cosine" --warm-up "5" --plateau-on "loss" --average "ema" '
        '--precision "bfloat16" --remat --jit --devices "2" --restart --checkpoint-minutes "5" --skip-bad'
    )
    assert f"brats-tf train {expected}" in " ".join(printed.split())


def test_the_tables_say_what_the_results_say():
    check = subprocess.run(
        [sys.executable, REPOSITORY / "experiments" / "tables.py", "--check"], capture_output=True, text=True
    )
    assert check.returncode == 0, check.stdout


def test_the_crop_has_one_home():
    places = [
        path.name
        for path in (REPOSITORY / "brats_tf").rglob("*.py")
        if re.search(r"\(192, 160, 108\)", path.read_text())
    ]
    assert places == ["presets.py"]


def test_public_names_are_documented():
    undocumented = []
    for path in (REPOSITORY / "brats_tf").rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in tree.body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                undocumented.append(f"{path.name}:{node.name}")
    assert undocumented == []


def test_every_dependency_has_its_reason_in_the_readme():
    import configparser

    parser = configparser.ConfigParser()
    parser.read(REPOSITORY / "setup.cfg")
    needed = re.findall(r"^([\w-]+)", parser["options"]["install_requires"], flags=re.MULTILINE)
    readme = (REPOSITORY / "README.md").read_text()
    assert needed
    assert [name for name in needed if not re.search(rf"^\| {name} \|", readme, flags=re.MULTILINE)] == []


def test_the_lock_pins_every_dependency_exactly():
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    assert all("==" in line for line in lines if line and not line.lstrip().startswith("#"))


def test_the_readmes_python_runs(phantom_folder, tmp_path):
    (block,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.S)
    small = {"(192, 160, 144)": "(32, 32, 24)", "(96, 96, 96)": "(16, 16, 16)", "store": tmp_path / "cache"}
    small["/data/BraTS2020_TrainingData"] = phantom_folder
    for written, used in small.items():
        quoted = f'"{written}"' if f'"{written}"' in block else written
        assert quoted in block
        block = block.replace(quoted, repr(str(used)) if quoted != written else used)
    inputs = keras.Input((16, 16, 16, 2))
    network = keras.Model(inputs, keras.layers.Conv3D(3, 1, activation="sigmoid")(inputs))
    network.compile("adam", "binary_crossentropy", run_eagerly=True)
    names = {"network": network}
    exec(block, names)  # noqa: S102 (our own README)
    assert len(names["stored"]) == 4
    assert len(network.history.history["loss"]) == 10
    (volume, target), *_ = names["dataset"].take(1)
    assert (volume.shape, target.shape) == ((2, 16, 16, 16, 2), (2, 16, 16, 16, 3))
