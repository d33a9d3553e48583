"""A release is a tag, a version and a section of the changelog that say the same."""

import importlib.util
import subprocess

import pytest
from repository import REPOSITORY

import brats_tf

spec = importlib.util.spec_from_file_location("release", REPOSITORY / "tools" / "release.py")
release = importlib.util.module_from_spec(spec)
spec.loader.exec_module(release)
CHANGELOG = "# Changelog\n\n## 0.2.0 (2026-12-01)\n\n- Faster.\n\n## 0.1.0 (2026-11-01)\n\n- The first.\n"


@pytest.fixture
def root(tmp_path):
    """A repository with a changelog and one commit."""
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "First"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    return tmp_path


def test_the_version_is_the_package_s():
    assert release.version_of(REPOSITORY) == brats_tf.__version__


def test_the_notes_are_those_of_the_newest_version(root):
    assert release.notes_of(root, "0.2.0") == "- Faster.\n"


@pytest.mark.parametrize("version", ["0.1.0", "0.3.0"])
def test_a_version_that_is_not_the_newest_has_no_notes(root, version):
    with pytest.raises(ValueError, match=f"must begin with version {version}. Received: 0.2.0"):
        release.notes_of(root, version)


def test_an_unreleased_section_is_refused(root):
    (root / "CHANGELOG.md").write_text(CHANGELOG.replace("2026-12-01", "unreleased"))
    with pytest.raises(ValueError, match="must give the date of 0.2.0"):
        release.notes_of(root, "0.2.0")


def test_the_commit_must_have_the_tag_and_nothing_uncommitted(root):
    with pytest.raises(ValueError, match=r"must have the tag v0.2.0. Received: none"):
        release.check_commit(root, "0.2.0")
    subprocess.run(["git", "tag", "v0.2.0"], cwd=root, check=True)
    release.check_commit(root, "0.2.0")
    (root / "new.txt").write_text("new")
    with pytest.raises(ValueError, match="1 changed files"):
        release.check_commit(root, "0.2.0")
