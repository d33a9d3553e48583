"""Pieces of HTML: everything that comes from data is escaped here and nowhere else."""

import base64
import html
import json
from pathlib import Path
from string import Template

FOLDER = Path(__file__).parent / "templates"


def page(title, subtitle, sections, atlases):
    """The whole page: {heading: HTML} as sections with a list of links, and the viewer's data."""
    ids = {heading: f"s{number}" for number, heading in enumerate(sections, start=1)}
    return _filled(
        "report.html",
        title=text(title),
        subtitle=text(subtitle),
        css=(FOLDER / "report.css").read_text(),
        javascript=(FOLDER / "report.js").read_text(),
        navigation="".join(f'<a href="#{ids[heading]}">{text(heading)}</a>' for heading in sections),
        sections="\n".join(
            f'<section id="{ids[heading]}"><h2>{text(heading)}</h2>\n{body}\n</section>'
            for heading, body in sections.items()
        ),
        # Inside <script>, "</" would end it.
        atlases=json.dumps(atlases).replace("<", "\\u003c"),
    )


def viewer(names):
    """The controls and the canvas of the slices."""
    return _filled("viewer.html", options="".join(f"<option>{text(name)}</option>" for name in names))


def text(value):
    """Anything as escaped text."""
    return html.escape(str(value))


def paragraph(value, *, kind=""):
    """One paragraph."""
    return f'<p class="{kind}">{text(value)}</p>' if kind else f"<p>{text(value)}</p>"


def table(head, rows, *, sortable=False):
    """A table; a cell is text, or (text, value to sort by)."""
    inner = "<button>{}</button>" if sortable else "{}"
    columns = "".join(f'<th scope="col">{inner.format(text(name))}</th>' for name in head)
    body = "\n".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in rows)
    kind = ' class="sortable"' if sortable else ""
    return f'<div class="wide"><table{kind}><thead><tr>{columns}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def image(path, caption):
    """A PNG inside the page."""
    data = base64.b64encode(Path(path).read_bytes()).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{text(caption)}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


def folded(summary, body, *, is_open=False):
    """Text that opens when one wants to see it."""
    return f"<details{' open' if is_open else ''}><summary>{text(summary)}</summary><pre>{text(body)}</pre></details>"


def _cell(cell):
    if isinstance(cell, tuple):
        shown, value = cell
        return f'<td data-value="{text(value)}">{text(shown)}</td>'
    return f"<td>{text(cell)}</td>"


def _filled(name, **values):
    return Template((FOLDER / name).read_text()).substitute(values)
