"""The command line: what it prints, and how fast."""

import argparse
import dataclasses
import shutil
import subprocess
import sys
import time

import pytest

from brats_tf.cli.arguments import configs_from, displayed_config
from brats_tf.cli.main import COMMANDS, main, parser
from brats_tf.cli.options import add_settings
from brats_tf.config.config import Config, all_settings
from brats_tf.config.fields import setting
from brats_tf.config.settings import Section
from brats_tf.errors import InputError


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
        "import sys; from brats_tf.cli.main import main\n"
        "try: main(['train', '--help'])\n"
        "finally: assert not {'tensorflow', 'keras', 'nibabel', 'matplotlib', 'scipy'} & set(sys.modules)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "brats-tf train BraTS2020 --modality flair" in done.stdout
    assert time.monotonic() - started < 5  # Not a measurement: TensorFlow alone takes longer on a slow machine.


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_teaches(call, command):
    code, printed, _ = call(command, "--help")
    assert code == 0
    lines = printed.splitlines()
    assert lines[0].startswith(f"usage: brats-tf {command} ")
    assert f"brats-tf {command}" in "".join(lines[1:])  # An example.
    assert "--traceback" in printed


def test_the_help_fits_one_screen(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, printed, _ = call("--help")
    lines = printed.splitlines()
    assert code == 0 and len(lines) <= 40
    for command in COMMANDS:
        assert [line.split()[0] for line in lines if line.strip()].count(command) == 1


def test_every_setting_is_an_option_with_its_default(call):
    _, printed, _ = call("train", "--help")
    text = " ".join(printed.split())
    for name, (_, one) in all_settings().items():
        if name != "modalities":
            assert one.option in printed
            assert one.help.split()[0] in text
    assert "(default: 200; embedding-plus: 100; albunet*: 50)" in text
    assert "(default: 192x160x108; embedding-authors, embedding-plus: 192x160x144; albunet*: 240x240x155)" in text


def test_a_new_setting_becomes_an_option_a_check_and_a_key():
    """What adding a training option takes: its declaration."""

    @dataclasses.dataclass(frozen=True)
    class More(Section):
        """More settings."""

        label_smoothing: float = setting(0.0, "smooths the labels", minimum=0, maximum=0.5)

    parser = argparse.ArgumentParser()
    add_settings(parser, More)
    assert parser.parse_args(["--label-smoothing", "0.1"]).label_smoothing == 0.1
    assert "smooths the labels (default: 0)" in parser.format_help()
    with pytest.raises(InputError, match="`label_smoothing` must be a number from 0 to 0.5. Received: 1.0"):
        More(1.0)


@pytest.mark.parametrize("traceback", ["--traceback", "BRATS_TF_TRACEBACK"])
def test_a_traceback_is_there_for_those_who_want_one(traceback, monkeypatch):
    arguments = ["inspect", "/nowhere"]
    if traceback.startswith("--"):
        arguments.append(traceback)
    else:
        monkeypatch.setenv(traceback, "1")
    with pytest.raises(InputError, match="The data folder /nowhere does not exist"):
        main(arguments)


def test_flags_override_the_config_file(tmp_path):
    Config.from_preset("embedding", modalities=("t2",), epochs=7, crop=(64, 64, 36)).save(tmp_path)
    words = ["train", "DATA", "--config", str(tmp_path / "config.json"), "--epochs", "9", "--rematerialise"]
    (config,) = configs_from(parser().parse_args(words))
    assert (config.data.modalities, config.data.crop, config.training.epochs) == (("t2",), (64, 64, 36), 9)
    assert config.compute.rematerialise
    (other,) = configs_from(parser().parse_args([*words, "--modality", "t1", "--no-rematerialise"]))
    assert (other.data.modalities, other.compute.rematerialise) == (("t1",), False)
    with pytest.raises(InputError, match="--preset must be embedding, as in .*config.json. Received: albunet3d"):
        configs_from(parser().parse_args([*words, "--preset", "albunet3d"]))


def test_cases_that_validate_do_so_every_fifth_epoch_unless_told():
    def frequency(*words):
        (config,) = configs_from(parser().parse_args(["train", "DATA", "--modality", "t1", *words]))
        return config.training.validation_frequency

    assert frequency() is None
    assert frequency("--validation-split", "0.2") == frequency("--folds", "5", "--fold", "0") == 5
    assert frequency("--validation-data", "OTHER", "--validation-frequency", "2") == 2


def test_another_fold_of_a_config_validates_as_often(tmp_path):
    def frequency(*words):
        (config,) = configs_from(parser().parse_args(["train", "DATA", "--config", f"{tmp_path}/config.json", *words]))
        return config.training.validation_frequency

    config = Config.from_preset("embedding", modalities=("t2",), folds=5, fold=0, validation_frequency=1)
    config.save(tmp_path)
    assert frequency("--fold", "1") == 1
    assert frequency("--fold", "1", "--validation-frequency", "3") == 3
    config.replace(folds=None, fold=None, validation_frequency=None).save(tmp_path)
    assert frequency() is None
    assert frequency("--validation-split", "0.2") == 5


def test_weights_begin_anew_where_the_file_names_a_run(tmp_path):
    Config.from_preset("embedding", modalities=("t2",), start_from="runs/embedding-t2").save(tmp_path)

    def config(*words):
        (one,) = configs_from(parser().parse_args(["train", "DATA", "--config", f"{tmp_path}/config.json", *words]))
        return one.training.start_from, one.network.weights

    assert config() == ("runs/embedding-t2", "imagenet")
    assert config("--weights", "none") == (None, "none")
    assert config("--weights", "imagenet") == (None, "imagenet")


def test_what_is_shown_is_what_would_be_trained(tmp_path):
    def shown(*words):
        return displayed_config(parser().parse_args(["summary", *words])).data.modalities

    Config.from_preset("embedding-authors").save(tmp_path)
    assert shown() == shown("--modality", "all") == ("flair",)
    assert shown("--modality", "t2") == ("t2",)
    assert len(shown("--config", f"{tmp_path}/config.json")) == 4
    assert shown("--config", f"{tmp_path}/config.json", "--modality", "t1") == ("t1",)


def test_cases_without_truth_that_are_all_bad_may_be_skipped(phantoms, tmp_path, call):
    data = tmp_path / "data"
    for number, case in enumerate(phantoms[:2]):
        shutil.copytree(case.folder, data / case.id)
        if number:
            (data / case.id / case.segmentation.name).unlink()
            flair = data / case.id / case.volumes["flair"].name
            flair.write_bytes(flair.read_bytes()[:-200])
    words = ["preprocess", data, "--modality", "flair", "--crop", "32x32x24", "--cache-dir", tmp_path / "cache"]
    code, printed, _ = call(*words, "--skip-invalid")
    assert code == 0 and f"Left out: Case {phantoms[1].id}" in " ".join(printed.split())
    assert call(*words)[0] == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "--modality", "foo"], "invalid choice: 'foo'"),
        (["train", "--modality", ""], "invalid choice: ''"),
        (["summary", "--crop", "48x64x36"], "Received: 48x64x36"),
        (
            ["predict", "--networks", "runs/t1,t2"],
            "expected names separated by commas, not paths, received 'runs/t1,t2'",
        ),
        (["predict", "--networks", "t1,t1"], "expected different names separated by commas, received 't1,t1'"),
        (["train", "--crop", "64x64"], "--crop: expected three positive whole numbers, H x W x D, received '64x64'"),
        (["train", "/nowhere", "--modality", "flair"], "The data folder /nowhere does not exist"),
        (["train", "--modality", "flair"], "DATA is missing: name a folder or a list of cases, or use --phantoms"),
        (["train", "/nowhere", "--phantoms", "--modality", "t1"], "DATA and --phantoms exclude each other"),
        (["train", "/nowhere"], "`modalities` must name what the network sees: flair, t1, t1ce, t2"),
        (
            ["train", "/nowhere", "--config", "/nowhere/config.json"],
            "The configuration /nowhere/config.json does not exist",
        ),
        (["train", "/nowhere", "--config", "/nowhere/my.json"], "The configuration /nowhere/my.json does not exist"),
        (["train", "--learning-rate", "inf"], "--learning-rate: expected a number above 0, received 'inf'"),
        (["train", "--checkpoint-minutes", "nan"], "--checkpoint-minutes: expected a number of at least 0, received"),
        (["train", "--checkpoint-minutes", "-1"], "--checkpoint-minutes: expected a number of at least 0, received"),
        (["train", "--epochs", "0"], "--epochs: expected a whole number of at least 1, received '0'"),
        (["train", "--epoch", "5"], "unrecognized arguments: --epoch"),
        (["predict", "/nowhere", "--runs", "/nowhere"], "/nowhere/embedding-t2 hold no trained networks"),
        (["evaluate", "/nowhere"], "The folder of predictions /nowhere does not exist"),
        (["evaluate", ""], "PREDICTIONS: expected a path, received an empty text"),
        (["evaluate", "a\udcff"], r"PREDICTIONS: expected a path in UTF-8, received 'a\udcff'"),
        (["train", "", "--modality", "t1"], "DATA: expected a path, received an empty text"),
        (["train", "/nowhere", "--modality", "t1", "--name", "../x"], "`name` must be letters, digits and"),
        (
            ["predict", "/nowhere", "--networks", "../flair"],
            "names separated by commas, not paths, received '../flair'",
        ),
        (["predict", "/nowhere\x1b[31m", "--networks", "a,a"], "received 'a,a'"),
        (["summary", "--crop", "192x160x100"], "Received: depth=100"),
        (["summary", "--backbone", "resnet"], "`backbone` must be one of"),
        (["backbones", "resnet"], "`backbone` must be one of efficientnetb0"),
        (["summary", "--planes", "5"], "must be 5 planes times three whole factors of at least 2"),
        (["summary", "--planes", "0"], "--planes: expected a whole number of at least 1, received '0'"),
        (["export", "/nowhere", "--out", "/nowhere/x"], "/nowhere holds no trained network"),
        (["inspect", "/nowhere"], "The data folder /nowhere does not exist"),
        (["preprocess", "--workers", "0"], "--workers: expected a whole number of at least 1, received '0'"),
        (["preprocess", "--verify", "--cache-dir", "/nowhere"], "The cache /nowhere does not exist"),
        (["train", "--augmentation", "all"], "invalid choice: 'all'"),
        (["train", "x", "--modality", "t1", "--folds", "5", "--fold", "5"], "`fold` must be from 0 to folds - 1"),
        (["train", "--spacing-mm", "-1"], "--spacing-mm: expected a number from 0.1 to 10, received '-1'"),
        (
            ["predict", "x", "--runs", "/nowhere", "--cases", "validation"],
            "/nowhere/embedding-t2 hold no trained networks",
        ),
        (["runs", "/nowhere"], "/nowhere holds no run with a run.json"),
        (["fly"], "invalid choice: 'fly'"),
    ],
)
def test_bad_arguments_get_a_sentence_and_exit_code_2(call, arguments, sentence):
    code, _, complaint = call(*arguments)
    assert code == 2
    assert sentence in complaint
    assert "Traceback" not in complaint
    assert len(complaint.splitlines()) == 1


def test_inspect_lists_what_is_there_and_what_is_skipped(call, phantom_folder, damaged):
    code, printed, _ = call("inspect", phantom_folder)
    assert code == 0
    assert "4 cases found, 4 with all four modalities, 4 with truth, 0 refused; 0 files or folders skipped." in printed
    (damaged[0].folder / "notes.nii.gz").touch()
    code, printed, _ = call("inspect", damaged[0].folder.parent)
    assert code == 0  # A truncated modality shows when its voxels are read.
    assert "2 cases found, 1 with all four modalities" in printed
    assert "notes.nii.gz: its name follows no BraTS layout" in printed


def test_backbones_lists_them_with_their_cost_and_what_is_not_there(call):
    code, printed, _ = call("backbones", "convnext_tiny")
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
    for words in ("squeeze1_pool", "efficientnetb0", "spread1_add", "16,576,706", "GFLOP in convolutions"):
        assert words in printed


def test_summary_of_the_authors_preset(call):
    code, printed, _ = call("summary", "--preset", "embedding-authors", "--crop", "64x64x36")
    assert code == 0
    for words in ("(None, 64, 64, 36, 4)", "squeeze1_stride", "planes_scaling", "classes"):
        assert words in printed
