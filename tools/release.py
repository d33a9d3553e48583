"""Builds a release from a tag: `dist/` with the wheel, the source archive and the notes.

The tag of the commit, `brats_tf.__version__` and the newest section of the changelog must name one version, and
nothing may be uncommitted.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECTION = re.compile(r"^## (\S+) \((.*)\)$", re.MULTILINE)


def version_of(root):
    """The version that the package says it has."""
    return re.search(r'^__version__ = "(.*)"$', (root / "brats_tf" / "__init__.py").read_text(), re.MULTILINE)[1]


def notes_of(root, version):
    """The changelog's section about a version. Raises `ValueError` when the newest one is another, or has no date."""
    text = (root / "CHANGELOG.md").read_text()
    newest, *older = SECTION.finditer(text)
    if newest[1] != version:
        raise ValueError(f"CHANGELOG.md must begin with version {version}. Received: {newest[1]}.")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", newest[2]):
        raise ValueError(f"CHANGELOG.md must give the date of {version} as YYYY-MM-DD. Received: {newest[2]}.")
    return text[newest.end() : older[0].start() if older else len(text)].strip() + "\n"


def check_commit(root, version):
    """Raises `ValueError` unless the commit has the tag `v<version>` and nothing is uncommitted."""
    tags = _git(root, "tag", "--points-at", "HEAD").split()
    if f"v{version}" not in tags:
        raise ValueError(f"The commit must have the tag v{version}. Received: {', '.join(tags) or 'none'}.")
    changed = _git(root, "status", "--porcelain").splitlines()
    if changed:
        raise ValueError(f"Nothing may be uncommitted. Received: {len(changed)} changed files.")


def main():
    """Exit code 2 and a sentence where the commit is no release."""
    version = version_of(ROOT)
    try:
        notes = notes_of(ROOT, version)
        check_commit(ROOT, version)
    except ValueError as error:
        print(f"release: {error}", file=sys.stderr)
        return 2
    subprocess.run([sys.executable, "-m", "build", "--outdir", "dist", str(ROOT)], cwd=ROOT, check=True)
    (ROOT / "dist" / f"brats_tf-{version}.md").write_text(notes)
    return 0


def _git(root, *words):
    return subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
