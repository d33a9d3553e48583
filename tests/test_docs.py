"""What is written down, holds: commands, links, tables, docstrings, names."""

import ast
import configparser
import os
import re
import shlex
import subprocess
import sys

import keras
import pytest
from repository import REPOSITORY

import brats_tf
from brats_tf.cli.main import COMMANDS, parser

PAGES = sorted(
    path.relative_to(REPOSITORY)
    for pattern in ("*.md", "experiments/*.md", "docs/**/*.md")
    for path in REPOSITORY.glob(pattern)
    if not {"generated", "_build", ".venv"} & set(path.parts)
)
MAKEFILE = (REPOSITORY / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, flags=re.MULTILINE))
VARIABLES = re.search(r"^KNOWN := (.*)", MAKEFILE, flags=re.MULTILINE)[1].split()
GENERATED = {"command-line", "settings", "presets", "backbones"}


def text_of(page):
    return (REPOSITORY / page).read_text()


def commands_on(page):
    """The `brats-tf` commands of a page's code blocks, with continuation lines joined and variables filled in."""
    for block in re.findall(r"```sh\n(.*?)```", text_of(page), re.S):
        loops = re.search(r"for command in ([\w -]+);", block)
        for line in block.replace("\\\n", " ").splitlines():
            found = re.search(r"brats-tf (?!COMMAND)([a-z$].*)", line.split(" #")[0].split(" &")[0])
            for name in loops[1].split() if found and loops else ["train"]:
                if found:
                    words = found[1].replace("$command", name).replace("$DATA", "DATA")
                    yield shlex.split(words.replace("$SLURM_ARRAY_TASK_ID", "1"))


def make(*words, **environment):
    # `make test ARGS=...` would hand its variables down.
    inherited = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKEOVERRIDES")}
    done = subprocess.run(
        ["make", "-C", REPOSITORY, *words], capture_output=True, text=True, env={**inherited, **environment}
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def ready(tmp_path):
    """The variable that names a virtual environment which need not be made."""
    (tmp_path / ".ready").write_text("\n")
    return f"VENV={tmp_path}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_make_command_on_a_page_is_a_target_with_known_variables(page):
    code = "".join(re.findall(r"```sh\n.*?```|`[^`\n]+`", text_of(page), re.S))
    for line in re.findall(r"\bmake ([a-z0-9-]+[^\n`]*)", code):
        target, *words = line.split(" #")[0].split()
        assert target in TARGETS or target.startswith("-"), line
        assert {word.split("=")[0] for word in words if re.match(r"[A-Z]+=", word)} <= set(VARIABLES), line


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_brats_tf_command_on_a_page_parses(page):
    for words in commands_on(page):
        assert parser().parse_args(words).command in COMMANDS, words


def test_commands_are_found_on_pages():
    assert sum(len(list(commands_on(page))) for page in PAGES) > 30


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_option_on_a_page_exists(page):
    known = {word for command in COMMANDS for word in parser_of(command)._option_string_actions}
    known |= {
        "--check",
        "--dependency",
        "--keep",
        "--publish",
        "--set",
        "--variants",
        "--length",
        "--seeds",
        "--validation",
        "--logdir",
        "--signal",
        "--requeue",
        "--env",  # Of docker; then Ray's and Triton's.
        "--user",
        "--head",
        "--model-repository",
    }
    code = "".join(re.findall(r"`[^`\n]*`", text_of(page)))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", code)) <= known


def parser_of(command):
    return parser()._subparsers._group_actions[0].choices[command]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_on_a_page_leads_somewhere(page):
    folder = (REPOSITORY / page).parent
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text_of(page))
    missing = [link for link in links if not (folder / link).exists()]
    assert [link for link in missing if link.split("generated/")[-1].removesuffix(".md") not in GENERATED] == []


def test_the_readme_is_short():
    assert len(text_of("README.md").splitlines()) <= 130


def test_every_page_is_in_the_table_of_contents():
    index = text_of("docs/index.md")
    for page in PAGES:
        if page.parts[0] == "docs" and page.name != "index.md":
            assert str(page.relative_to("docs").with_suffix("")) in index


def test_the_reference_pages_are_made_of_the_code(tmp_path):
    script = "import sys; sys.path.insert(0, 'docs'); from generate import write_reference as write; write(sys.argv[1])"
    subprocess.run([sys.executable, "-c", script, tmp_path], cwd=REPOSITORY, check=True)
    pages = {path.stem: path.read_text() for path in tmp_path.iterdir()}
    assert set(pages) == GENERATED
    defaults = "200; embedding-plus: 100; albunet*: 50"
    assert f"| `epochs` | a whole number of at least 1 | {defaults} | Passes over the training" in pages["settings"]
    assert "## brats-tf train" in pages["command-line"] and "--window-stride HxWxD" in pages["command-line"]
    assert "## albunet3d-authors" in pages["presets"] and "| `convnext_tiny` |" in pages["backbones"]


def test_make_alone_lists_the_targets():
    _, printed, _ = make("-s")
    for target in TARGETS - {"help"}:
        assert f"make {target}" in printed


def test_every_target_of_the_program_expands_to_a_command_that_it_takes(ready):
    for target in TARGETS - {"help", "setup"}:
        for variables in ([], ["MOD=t1", "DATA=/d e", "RUNS=r", "OUT=o", "RESULTS=s"]):
            _, printed, _ = make("-n", target, ready, *variables)
            for line in printed.splitlines():
                if "/bin/brats-tf " in line:
                    words = shlex.split(line)[1:]
                    given = parser().parse_args(words)
                    if given.command in ("evaluate", "report"):
                        assert str(given.predictions) == ("o" if variables else "phantoms/predictions")
                        assert str(given.truth) == ("/d e" if variables else "None")
                    else:
                        assert given.command == "demo" or str(given.data) == ("/d e" if variables else "None")


def test_an_empty_data_variable_trains_nothing(ready):
    code, printed, complaint = make("-n", "train-modality", ready, "MOD=flair", "DATA=")
    assert code == 2 and "brats-tf" not in printed
    assert "DATA is empty: name the folder of your cases" in complaint


def test_the_commands_of_the_makefile_pass_options_on(ready):
    _, printed, _ = make("-n", "train-modality", ready, "MOD=flair", "DATA=/d", "ARGS=--epochs 5 --seed 7")
    assert 'brats-tf train "/d" --modality "flair"  --epochs 5 --seed 7' in printed


@pytest.mark.parametrize("word", ["EPOCH=5", "EPOCHS=5", "DTA=/d", "Mod=t1"])
def test_an_unknown_variable_is_refused_with_the_known_ones(word, ready):
    code, printed, complaint = make("-n", "train-modality", ready, "MOD=flair", word)
    assert (code, printed) == (2, "") or "brats-tf" not in printed
    assert f"{word.split('=')[0]} is not a variable of this Makefile; known are {' '.join(VARIABLES)}" in complaint


def test_the_environment_does_not_leak_in(ready):
    alone = make("-n", "train-modality", ready, "MOD=flair")[1]
    assert (
        make("-n", "train-modality", ready, "MOD=flair", DATA="/d", RUNS="r", SEED="7", ARGS="--epochs 1")[1] == alone
    )


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
    assert places == ["settings.py"]


def test_public_names_are_documented():
    undocumented = []
    for path in (REPOSITORY / "brats_tf").rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in tree.body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                undocumented.append(f"{path.name}:{node.name}")
    assert undocumented == []


def test_the_public_api_is_eleven_names_loaded_on_first_use():
    script = (
        "import sys, brats_tf\n"
        "assert not {'tensorflow', 'keras', 'numpy', 'nibabel'} & set(sys.modules)\n"
        "assert set(brats_tf.__all__) <= set(dir(brats_tf))\n"
        "for name in brats_tf.__all__: assert callable(getattr(brats_tf, name)), name\n"
        "try: brats_tf.nothing\n"
        "except AttributeError as error: assert 'nothing' in str(error)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert len(brats_tf.__all__) == 11
    for name in brats_tf.__all__:
        assert f"{name}\n" in text_of("docs/reference/api.md") or f"{name}(" in text_of("docs/reference/api.md")


def test_every_dependency_has_its_reason():
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    extras = setup["options.extras_require"]
    needed = re.findall(r"^([\w-]+)", setup["options"]["install_requires"], flags=re.MULTILINE)
    needed += re.findall(r"^([\w-]+)", "\n".join(extras[name] for name in extras), flags=re.MULTILINE)
    reasons = "".join(
        line.split("|")[1] for line in text_of("docs/explanation/dependencies.md").splitlines() if "|" in line
    )
    assert needed
    assert [name for name in needed if name not in re.findall(r"[\w-]+", reasons)] == []


def test_the_lock_pins_every_dependency_exactly():
    lines = text_of("requirements.lock").splitlines()
    assert all("==" in line for line in lines if line and not line.lstrip().startswith("#"))


@pytest.mark.slow
def test_the_python_of_the_pipeline_page_runs(phantom_folder, tmp_path):
    (block,) = re.findall(r"```python\n(.*?)```", text_of("docs/how-to/use-the-pipeline.md"), re.S)
    small = {
        "(192, 160, 144)": "(32, 32, 24)",
        "(96, 96, 96)": "(16, 16, 16)",
        '"cache"': repr(str(tmp_path / "cache")),
    }
    small['"/data/BraTS2020_TrainingData"'] = repr(str(phantom_folder))
    for written, used in small.items():
        assert written in block
        block = block.replace(written, used)
    inputs = keras.Input((16, 16, 16, 2))
    network = keras.Model(inputs, keras.layers.Conv3D(3, 1, activation="sigmoid")(inputs))
    network.compile("adam", "binary_crossentropy", run_eagerly=True)
    names = {"network": network}
    exec(block, names)  # noqa: S102 (our own page)
    assert len(names["stored"]) == 4
    assert len(network.history.history["loss"]) == 10
    (volume, target), *_ = names["dataset"].take(1)
    assert (volume.shape, target.shape) == ((2, 16, 16, 16, 2), (2, 16, 16, 16, 3))


def test_nothing_speaks_of_rooms_or_old_names():
    """Metaphors and names that were given up stay away."""
    given_up = r"\b(front door|floors|made-up|made anew|trained anew|paper_b|authors_b|hold_out|held_out)\b"
    for path in [*REPOSITORY.glob("brats_tf/**/*.py"), *(REPOSITORY / page for page in PAGES), REPOSITORY / "Makefile"]:
        found = re.findall(given_up, path.read_text())
        assert found == [] or path.name == "CHANGELOG.md", f"{path}: {found}"
