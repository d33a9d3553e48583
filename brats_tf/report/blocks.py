"""The building blocks of the report's page; the templates turn them into HTML and escape all text."""

import base64
from dataclasses import dataclass
from pathlib import Path

import jinja2

from brats_tf.regions import CLASSES
from brats_tf.visualisation.overlays import COLOUR_BLIND_SAFE, ERROR_COLOURS
from brats_tf.visualisation.sprite_sheet import CLASS_LEVELS

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Paragraph:
    """One paragraph; `kind` is a CSS class, such as "note"."""

    text: str
    kind: str = ""
    block = "paragraph"


@dataclass(frozen=True)
class Table:
    """A table; a cell is text, or (text, value to sort by)."""

    head: tuple
    rows: list
    sortable: bool = False
    block = "table"


@dataclass(frozen=True)
class Image:
    """A PNG file, embedded in the page."""

    path: Path
    caption: str
    block = "image"

    @property
    def base64(self):
        """The content of the file."""
        return base64.b64encode(Path(self.path).read_bytes()).decode()


@dataclass(frozen=True)
class Details:
    """Preformatted text that opens on a click."""

    summary: str
    body: str
    is_open: bool = False
    block = "details"


@dataclass(frozen=True)
class Viewer:
    """The slices of some cases, to scroll through; their sprite sheets are data of the page."""

    names: list
    block = "viewer"


def render_page(title, subtitle, sections, sprite_sheets):
    """The whole page as HTML.

    Args:
        title, subtitle: text.
        sections: [(heading, list of blocks)].
        sprite_sheets: {case id: sprite sheet as JSON can hold it}.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    palette = {
        "levels": CLASS_LEVELS,
        "classes": list(CLASSES),
        "colours": COLOUR_BLIND_SAFE,
        "errors": ERROR_COLOURS,
    }
    html = environment.get_template("report.html").render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        sprite_sheets=sprite_sheets,
        palette=palette,
        css=(TEMPLATES / "report.css").read_text(),
        javascript=(TEMPLATES / "report.js").read_text(),
    )
    return html.encode("utf-8", "replace").decode()  # The name of a folder may be no UTF-8.
