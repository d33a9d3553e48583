"""The front door: what it says to people, and how fast."""

import subprocess
import sys
import time

import pytest

from brats_tf.cli.main import COMMANDS, main


@pytest.fixture
def call(capsys):
    """Runs the program in this process: (exit code, what it printed, what it complained of)."""

    def run(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            code = leaving.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_help_is_quick_and_never_loads_tensorflow():
    script = (
        "import sys; from brats_tf.cli import main\n"
        "try: main(['train', '--help'])\n"
        "finally: assert not {'tensorflow', 'keras', 'nibabel', 'matplotlib', 'scipy'} & set(sys.modules)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "brats-tf train --data BraTS2020 --modality flair" in done.stdout
    assert time.monotonic() - started < 5  # Not a measurement: TensorFlow alone takes longer on a slow machine.


@pytest.mark.parametrize("command", [command.__name__ for command in COMMANDS])
def test_every_command_teaches(call, command):
    code, printed, _ = call(command, "--help")
    assert code == 0
    assert len(printed.splitlines()) > 5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "--modality", "foo"], "invalid choice: 'foo'"),
        (["train", "--modality", ""], "invalid choice: ''"),
        (["train", "--modality", "t1", "--crop", "48x64x36"], "Received: 48x64x36"),
        (["predict", "--networks", "t1,t1"], "expected different names joined by commas, received 't1,t1'"),
        (["train", "--modality", "flair", "--crop", "64x64"], "expected three whole numbers, such as 192x160x108"),
        (["train", "--modality", "flair", "--data", "/nowhere"], "The data folder /nowhere does not exist"),
        (["train", "--data", "/nowhere"], "`modalities` must name at least one of flair, t1, t1ce, t2"),
        (["train", "--modality", "flair", "--epochs", "0"], "`epochs` must be a whole number of at least 1"),
        (["predict", "--runs", "/nowhere"], "/nowhere/flair holds no trained network"),
        (["evaluate", "--data", "/nowhere"], "The data folder /nowhere does not exist"),
        (["summary", "--crop", "192x160x100"], "Received: depth=100"),
        (["summary", "--backbone", "resnet"], "`backbone` must be one of"),
        (["backbones", "--backbone", "resnet"], "`backbone` must be one of efficientnetb0"),
        (["summary", "--planes", "5"], "must be 5 planes times three whole factors of at least 2"),
        (["summary", "--planes", "0"], "`planes` must be a whole number of at least 1. Received: 0"),
        (["export", "--run", "/nowhere", "--out", "/nowhere/x"], "/nowhere holds no trained network"),
        (["cases", "--data", "/nowhere"], "The data folder /nowhere does not exist"),
        (["prepare", "--workers", "0"], "expected a whole number of at least 1, received '0'"),
        (["prepare", "--verify", "--store", "/nowhere"], "The store /nowhere does not exist"),
        (["train", "--modality", "t1", "--augmentation", "all"], "invalid choice: 'all'"),
        (["train", "--modality", "t1", "--fold", "5/5"], "`fold` must be from 0 to folds - 1"),
        (["train", "--modality", "t1", "--spacing-mm", "-1"], "`spacing_mm` must be from 0.1 to 10. Received: -1.0"),
        (["predict", "--runs", "/nowhere", "--held-out"], "/nowhere/flair holds no trained network"),
        (["fly"], "invalid choice: 'fly'"),
    ],
)
def test_bad_arguments_get_a_sentence_and_exit_code_2(call, arguments, sentence):
    code, _, complaint = call(*arguments)
    assert code == 2
    assert sentence in complaint
    assert "Traceback" not in complaint
    assert len(complaint.splitlines()) == 1


def test_cases_lists_what_is_there_and_what_is_skipped(call, phantom_folder, damaged):
    code, printed, _ = call("cases", "--data", phantom_folder)
    assert code == 0
    assert "4 cases found, 4 with all four modalities, 4 with truth, 0 refused; 0 files or folders skipped." in printed
    (damaged[0].folder / "notes.nii.gz").touch()
    code, printed, _ = call("cases", "--data", damaged[0].folder.parent)
    assert code == 0  # A truncated modality shows when its voxels are read.
    assert "2 cases found, 1 with all four modalities" in printed
    assert "notes.nii.gz: its name follows no BraTS layout" in printed


def test_backbones_lists_them_with_their_cost_and_what_is_not_there(call):
    code, printed, _ = call("backbones", "--backbone", "convnext_tiny")
    assert code == 0
    row = next(line for line in printed.splitlines() if line.strip().startswith("convnext_tiny "))
    for words in ("imagenet", "- 96 192 384 768", "27.8"):
        assert words in row
    assert "convnext_tiny: no P1: its first convolution has stride 4." in printed
    assert "efficientnetb0" not in printed
    _, printed, _ = call("backbones")
    assert "Not offered: nasnetmobile, nasnetlarge: a cell reads the two before it" in printed
    assert printed.index("from keras.applications") < printed.index("from segmentation-models")
    for name in ("efficientnetb7", "seresnext101", "vgg16"):
        assert f" {name} " in printed


def test_summary_with_another_backbone_and_more_planes(call):
    code, printed, _ = call("summary", "--crop", "64x64x48", "--backbone", "resnet18", "--planes", "6")
    assert code == 0
    for words in ("resnet18 (Functional)", "(None, 64, 64, 6)", "GFLOP in convolutions"):
        assert words in printed


def test_summary_prints_the_network(call):
    code, printed, _ = call("summary", "--crop", "64x64x36")
    assert code == 0
    for words in ("squeeze1_pool", "efficientnetb0", "spread1_add", "16,574,819", "GFLOP in convolutions"):
        assert words in printed


def test_summary_of_the_authors_preset(call):
    code, printed, _ = call("summary", "--preset", "authors", "--crop", "64x64x36")
    assert code == 0
    for words in ("(None, 64, 64, 36, 4)", "squeeze1_stride", "planes_scaling", "classes"):
        assert words in printed
