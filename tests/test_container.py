"""The container's files: what they copy is enough to build the package, and both install the same."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from repository import REPOSITORY

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
APPTAINER = (REPOSITORY / "apptainer.def").read_text()


def copied_into_the_image():
    lines = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    return [name for line in lines for name in line.split()]


def test_the_dockerfile_follows_the_rules_of_hadolint():
    program = Path(sys.executable).with_name("hadolint")
    if not program.is_file():
        pytest.skip("hadolint is not installed")
    done = subprocess.run([program, REPOSITORY / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_both_files_copy_the_same_and_install_locked_versions():
    section = APPTAINER.partition("%files")[2].partition("%post")[0]
    assert [line.split()[0] for line in section.strip().splitlines()] == copied_into_the_image()
    for text in (DOCKERFILE, APPTAINER):
        installs = re.findall(r"pip install (.*)", text)
        assert installs
        assert all("--constraint requirements.lock" in words for words in installs)


def test_the_context_holds_what_is_copied_and_nothing_else():
    allowed = re.findall(r"^!(.*)$", (REPOSITORY / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(allowed) == sorted(copied_into_the_image())
    assert (REPOSITORY / ".dockerignore").read_text().startswith("*\n")


def test_the_last_stage_is_the_one_of_a_processor_and_nobody_is_root():
    stages = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)
    assert stages == ["build", "build-gpu", "runtime", "gpu", "cpu"]
    assert "USER 1000" in DOCKERFILE.partition("AS runtime")[2].partition("FROM")[0]


def test_what_is_copied_is_enough_to_build_the_package(tmp_path):
    for name in copied_into_the_image():
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copyfile
        copy(REPOSITORY / name, tmp_path / name)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (tmp_path / done.stdout.splitlines()[-1]).is_file()
