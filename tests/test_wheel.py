"""What `pip install` brings is the whole package, and it runs without the repository."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
from repository import REPOSITORY

import brats_tf

BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, 'build_' + sys.argv[1])(sys.argv[2]))"


@pytest.fixture(scope="module")
def tracked():
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        pytest.skip("needs a checkout of git")
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    return [name for name in listed.splitlines() if (REPOSITORY / name).is_file()]


@pytest.fixture(scope="module")
def built(tracked, tmp_path_factory):
    """A function from "wheel" or "sdist" to the archive, built from a copy of what git tracks."""
    folder = tmp_path_factory.mktemp("built")
    for name in tracked:
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, folder / "source" / name)

    def build(kind, source=folder / "source"):
        done = subprocess.run(
            [sys.executable, "-c", BUILD, kind, str(folder)], cwd=source, check=True, capture_output=True, text=True
        )
        return folder / done.stdout.splitlines()[-1]

    return build


def members(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if name.startswith("brats_tf/")}


def test_the_wheel_has_every_file_of_the_package(built, tracked):
    wheel = built("wheel")
    assert members(wheel) == {name for name in tracked if name.startswith("brats_tf/")}
    assert wheel.name == f"brats_tf-{brats_tf.__version__}-py3-none-any.whl"


def test_the_source_archive_builds_the_same_wheel(built, tracked, tmp_path):
    with tarfile.open(built("sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    assert (source / "LICENSE").is_file()
    assert members(built("wheel", source)) == {name for name in tracked if name.startswith("brats_tf/")}


@pytest.mark.large
def test_the_installed_wheel_runs_the_demo_without_the_repository(built, tmp_path):
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*pip, str(built("wheel"))], check=True)
    environment = os.environ | {"PYTHONPATH": str(site)}

    def run(*words):
        command = [sys.executable, *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout

    assert str(site) in run("-c", "import brats_tf; print(brats_tf.__file__)")
    assert "segment" in run("-m", "brats_tf", "--help")
    run("-m", "brats_tf", "demo")
    assert (tmp_path / "demo" / "results" / "report.html").stat().st_size > 100_000
