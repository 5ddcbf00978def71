"""What the report as a whole promises: one page that fetches nothing, true to what it was given."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from contract.errors import InputError
from contract.family import Family
from contract.policy import Policy
from report.analysis.arms import Arm
from report.render import Evidence, headline, render_report


def _runs(arms: tuple[Arm, ...]) -> list[Path]:
    return [path for arm in arms for path in (*arm.equal[:1], *arm.capacity)]


@pytest.fixture(scope="module")
def written(
    family: Family,
    family_folder: Path,
    policy: Policy,
    arms: tuple[Arm, ...],
    comparison: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Path]:
    """A report of everything."""
    folder = tmp_path_factory.mktemp("report")
    business = folder / "business.yaml"
    business.write_text("requests_per_month: 10000000\nusd_per_error: 0.002\ngrid: deu\n")
    return render_report(
        Evidence(
            family=family,
            family_folder=family_folder,
            policies=[policy],
            runs=_runs(arms),
            comparison=comparison,
            business=business,
        ),
        folder / "report.html",
    )


class _Links(HTMLParser):
    """Collects every reference and every id of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note src, href and id."""
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "data"}:
                self.references.append(value or "")
            if name == "id":
                self.ids.append(value or "")


def test_page_fetches_nothing(written: list[Path]) -> None:
    """The page refers to nothing but itself and holds no script."""
    page = written[0].read_text()
    links = _Links()
    links.feed(page)
    assert all(reference.startswith("#") for reference in links.references)
    assert "<script" not in page
    assert "@import" not in page
    assert "url(" not in page


def test_every_id_is_there_once_and_every_link_leads_somewhere(written: list[Path]) -> None:
    """Two elements never share an id, and the contents point at sections that exist."""
    links = _Links()
    links.feed(written[0].read_text())
    assert len(set(links.ids)) == len(links.ids)
    assert {reference[1:] for reference in links.references} <= set(links.ids)


def test_every_chart_has_a_title_and_words_for_those_who_cannot_see_it(written: list[Path]) -> None:
    """Each picture carries a role, a title and a description, on the page and in its own file."""
    page = written[0].read_text()
    charts = re.findall(r'<svg class="chart".*?</svg>', page, flags=re.S)
    files = [path for path in written if path.suffix == ".svg"]
    assert len(charts) == len(files) >= 8
    for text in [*charts, *(path.read_text() for path in files)]:
        root = ElementTree.fromstring(text)
        names = {child.tag.partition("}")[2]: child.text for child in root}
        assert root.get("role") == "img"
        assert names["title"]
        assert names["desc"]


def test_page_says_what_was_asked_of_it(written: list[Path]) -> None:
    """Result, decision, certificate, frontier, slices, classes, steps, load and provenance are all there."""
    page = written[0].read_text()
    for words in (
        "The result", "Recommended:", "Certified: with 90% confidence", "at most 2.0 points",
        "Accuracy against latency", "What each step cost", "Accuracy per slice", "Recall per class",
        "How latencies spread", "Neighbouring choices", "estimated from load", "AMD EPYC 9R14", "Wilson",
        "Newcombe", "block bootstrap", "Dominated",
    ):  # fmt: skip
        assert words in page, words


def test_markdown_holds_the_same_tables(written: list[Path]) -> None:
    """Every table title of the page is a heading of the Markdown, and its pictures exist."""
    page, text = written[0].read_text(), written[1].read_text()
    for title in re.findall(r"<h3>(.*?)</h3>", page):
        assert f"### {title}" in text
    for link in re.findall(r"\]\(([^)]+\.svg)\)", text):
        assert (written[1].parent / link).is_file()


def test_names_from_outside_cannot_become_markup(make_run: Any, tmp_path: Path) -> None:
    """A model named like a tag is shown as text."""
    run = make_run("hostile", "<script>alert(1)</script>", seconds=5)
    pages = render_report(Evidence(runs=[run]), tmp_path / "r.html")
    for path in pages:
        if path.suffix in {".html", ".svg"}:
            assert "<script>alert" not in path.read_text()


def test_a_family_alone_makes_a_report(family: Family, tmp_path: Path) -> None:
    """Without runs, policies or predictions the report has what a family can say."""
    paths = render_report(Evidence(family=family), tmp_path / "r.html")
    page = paths[0].read_text()
    assert "Accuracy against latency" in page
    assert "Under load" not in page


def test_a_policy_that_needs_more_than_the_predictions_have_is_explained_not_drawn(
    family: Family, family_folder: Path, policy: Policy, tmp_path: Path
) -> None:
    """A policy naming another family's variant is told in words, with why it has no curve."""
    stranger = policy.stages[0].model_copy(update={"variant": "other"})
    odd = policy.model_copy(update={"stages": (stranger, policy.stages[-1])})
    paths = render_report(
        Evidence(family=family, family_folder=family_folder, policies=[odd]), tmp_path / "r.html"
    )
    assert "could not be replayed" in paths[0].read_text()


def test_nothing_to_report_on_is_refused(tmp_path: Path) -> None:
    """An empty call says what to give."""
    with pytest.raises(InputError, match="nothing to report on"):
        render_report(Evidence(), tmp_path / "r.html")


def test_headline_names_the_arms_and_the_gain(comparison: dict[str, Any]) -> None:
    """The first sentence compares the last arm with the first."""
    said = headline(comparison)
    assert said.startswith("At 40")
    assert "cascade answers" in said
    assert "points against teacher only" in said
    assert "instead of" in said
    assert "× the goodput" in said


@pytest.mark.parametrize(
    ("limited_by", "compared"), [("server", True), ("generator", False), ("search", False)]
)
def test_headline_compares_no_capacity_that_the_generator_set(
    comparison: dict[str, Any], limited_by: str, compared: bool
) -> None:
    """A ratio of capacities is told only where the server was the limit of both arms."""
    search = {"rate_per_s": 50.0, "limited_by": limited_by, "confirmed": True, "interval_per_s": None}
    first, *others, last = comparison["arms"]
    server = search | {"limited_by": "server"}
    told = headline(comparison | {"arms": [first | {"search": server}, *others, last | {"search": search}]})
    assert ("the goodput" in told) == compared
