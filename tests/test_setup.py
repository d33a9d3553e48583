"""`make setup` chooses a Python, or says in one sentence which it needs."""

import configparser
import re
import subprocess
import sys
import types

import pytest
from repository import REPOSITORY

SETUP = REPOSITORY / "tools" / "setup.sh"


def fake_python(folder, version):
    """A program that claims to be a Python of an unsuitable version."""
    path = folder / "python3"
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo Python {version}\nexit 1\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("version", ["3.9.2", "3.14.0"])
def test_another_python_gets_a_clear_sentence(tmp_path, version):
    python = fake_python(tmp_path, version)
    done = subprocess.run(["/bin/sh", SETUP, tmp_path / "venv", python], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"make setup: needs Python 3.10 to 3.13; PYTHON={python} is Python {version}.\n"
    assert not (tmp_path / "venv").exists()


def test_no_suitable_python_at_all_gets_a_clear_sentence(tmp_path):
    fake_python(tmp_path, "3.9.2")
    environment = {"PATH": str(tmp_path)}
    done = subprocess.run(["/bin/sh", SETUP, tmp_path / "venv", ""], capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "needs Python 3.10 to 3.13; found Python 3.9.2" in done.stderr


def test_a_python_that_is_not_there_is_named(tmp_path):
    done = subprocess.run(["/bin/sh", SETUP, tmp_path / "venv", "/no/python"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "make setup: PYTHON=/no/python is not there.\n")


def test_the_bounds_are_those_of_setup_cfg():
    expression = re.search(r"sys.exit\((not .*)\)\' >", SETUP.read_text()).group(1)
    parser = configparser.ConfigParser()
    parser.read(REPOSITORY / "setup.cfg")
    assert parser["options"]["python_requires"] == ">=3.10,<3.14"
    suits = {
        minor: not eval(expression, {"sys": types.SimpleNamespace(version_info=(3, minor, 1))})  # noqa: S307
        for minor in range(8, 16)
    }
    assert [minor for minor, suitable in suits.items() if suitable] == [10, 11, 12, 13]


def test_a_folder_that_setup_did_not_make_is_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious")
    done = subprocess.run(["/bin/sh", SETUP, tmp_path / "thesis", sys.executable], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"make setup: VENV={tmp_path / 'thesis'} exists and is not a virtual environment")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "precious"
    clean = ["make", "--dry-run", "clean", f"VENV={tmp_path / 'thesis'}"]
    commands = subprocess.run(clean, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert f'[ ! -f "{tmp_path / "thesis"}/pyvenv.cfg" ] || rm -rf' in commands
