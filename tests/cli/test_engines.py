"""Where work is done: what the options exclude, and what is said where Ray is not installed."""

import pytest

from brats_tf.cli.main import main
from brats_tf.runtime import libraries


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "cases", "--networks", "flair"],
        ["evaluate", "predictions"],
        ["preprocess", "cases"],
    ],
)
def test_an_address_is_of_a_cluster(words, phantom_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cases").symlink_to(phantom_folder)
    (tmp_path / "predictions").symlink_to(phantom_folder)
    truth = ["--truth", str(phantom_folder)] if words[0] == "evaluate" else []
    assert main([*words, *truth, "--address", "auto"]) == 2
    assert "--address is for --engine ray. Received: --address auto without it." in capsys.readouterr().err
    assert main(["predict", str(phantom_folder), "--workers", "2"]) == 2
    assert "--workers is for --engine ray. Received: --workers 2 without it." in capsys.readouterr().err


def test_ray_that_is_not_installed_is_named(phantom_folder, monkeypatch, capsys):
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    assert main(["preprocess", str(phantom_folder), "--engine", "ray"]) == 2
    assert "ray is not installed: pip install '.[ray]' in this repository." in capsys.readouterr().err


def test_shards_and_ray_exclude_each_other(phantom_folder, tmp_path, capsys):
    words = [
        "predict",
        str(phantom_folder),
        "--runs",
        str(tmp_path),
        "--networks",
        "flair",
        "--out",
        str(tmp_path / "p"),
    ]
    assert main([*words, "--engine", "ray", "--shard", "1/2"]) == 2
    assert "--engine ray divides by itself" in capsys.readouterr().err
