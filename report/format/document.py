"""A report as blocks, and its two forms: one HTML page that fetches nothing, and Markdown with SVG files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from contract.files import write_text
from report.format.chart import Chart
from report.format.svg import STYLE, draw
from report.format.tables import Table, to_markdown


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text; `lead` makes it the section's first statement."""

    text: str
    lead: bool = False
    kind: str = "paragraph"


@dataclass(frozen=True)
class Bullets:
    """A list of plain sentences."""

    items: tuple[str, ...]
    kind: str = "bullets"


@dataclass(frozen=True)
class Figures:
    """Charts side by side, wide ones on lines of their own."""

    charts: tuple[Chart, ...]
    kind: str = "figures"


@dataclass(frozen=True)
class Tabular:
    """A table; `folded` hides it behind its title until it is opened."""

    table: Table
    folded: bool = False
    kind: str = "table"


Block = Paragraph | Bullets | Figures | Tabular


@dataclass(frozen=True)
class Section:
    """A part of the report under one heading."""

    key: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """The whole report."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]

    @property
    def charts(self) -> tuple[Chart, ...]:
        """Every chart, in order."""
        blocks = [block for section in self.sections for block in section.blocks]
        return tuple(chart for block in blocks if isinstance(block, Figures) for chart in block.charts)


def to_html(document: Document) -> str:
    """Return one page that needs nothing else: style and pictures are inside."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["draw"] = lambda chart: Markup(draw(chart))
    environment.filters["cell"] = _cell
    text = (resources.files("report") / "templates" / "report.html.j2").read_text("utf-8")
    return environment.from_string(text).render(document=document, chart_style=Markup(STYLE))


def _cell(text: str) -> Markup:
    """Return a cell with its interval, `[low, high]`, set apart from its value."""
    value, bracket, rest = text.partition(" [")
    if not bracket:
        return escape(text)
    return Markup('{} <span class="interval">[{}</span>').format(value, rest)


def to_markdown_text(document: Document, figures: str) -> str:
    """Return the report as Markdown; charts are links to `figures/KEY.svg`."""
    parts = [f"# {document.title}", document.subtitle]
    for section in document.sections:
        parts.append(f"## {section.title}")
        for block in section.blocks:
            parts += _markdown(block, figures)
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown(block: Block, figures: str) -> list[str]:
    if isinstance(block, Paragraph):
        return [f"**{block.text}**" if block.lead else block.text]
    if isinstance(block, Bullets):
        return ["\n".join(f"- {item}" for item in block.items)]
    if isinstance(block, Figures):
        return [f"![{_alternative(chart)}]({figures}/{chart.key}.svg)" for chart in block.charts]
    return [f"### {block.table.title}", to_markdown(block.table)]


def _alternative(chart: Chart) -> str:
    return f"{chart.title}. {chart.description}".replace("[", "(").replace("]", ")")


def write_document(document: Document, out: Path) -> list[Path]:
    """Write HTML, Markdown and the charts as SVG files beside it; return the paths, the page first.

    `out` gives folder and name; its suffix becomes .html and .md.
    """
    page, text = out.with_suffix(".html"), out.with_suffix(".md")
    folder = out.with_name(f"{out.stem}-figures")
    charts = [folder / f"{chart.key}.svg" for chart in document.charts]
    for path, chart in zip(charts, document.charts, strict=True):
        write_text(path, draw(chart, standalone=True) + "\n")
    write_text(text, to_markdown_text(document, folder.name))
    write_text(page, to_html(document))
    return [page, text, *charts]


def blocks(*found: Block | Sequence[Block] | None) -> tuple[Block, ...]:
    """Return the blocks that there are, flattened."""
    flat: list[Block] = []
    for item in found:
        if isinstance(item, Paragraph | Bullets | Figures | Tabular):
            flat.append(item)
        elif item is not None:
            flat += item
    return tuple(flat)
