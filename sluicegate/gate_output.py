"""What a gate found, as a table for people, for GitHub's summary of a job, and as JUnit's XML for CI."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from contract.errors import InputError
from contract.files import write_text
from loadtest.gate import Check, GateResult
from report.format.figures import UNKNOWN
from report.format.tables import Row, Table, to_markdown

TITLES = {"passed": "passed", "worse": "worse", "unsure": "unsure: too few samples"}


def gate_table(result: GateResult) -> Table:
    """Return one row per figure compared."""
    rows = tuple(
        Row(
            (
                check.name, _text(check.base), _text(check.head), _change(check), f"{check.limit:g}",
                check.verdict, check.method,
            ),
            "strong" if check.verdict == "worse" else "",
        )
        for check in result.checks
    )  # fmt: skip
    columns = ("figure", "base", "head", "change", "limit", "verdict", "interval by")
    title = f"{result.head} against {result.base}: {TITLES[result.verdict]}"
    return Table("gate", title, columns, rows, (), frozenset({"verdict", "interval by"}))


def write_junit(path: Path, result: GateResult) -> None:
    """Write a JUnit XML file: one test case per figure; worse is a failure, unsure is skipped."""
    counts = [check.verdict for check in result.checks]
    suite = ET.Element(
        "testsuite",
        name="sluice gate",
        tests=str(len(counts)),
        failures=str(counts.count("worse")),
        skipped=str(counts.count("unsure")),
        errors="0",
    )
    for check in result.checks:
        case = ET.SubElement(suite, "testcase", classname="sluice.gate", name=check.name)
        if check.verdict != "passed":
            kind = "failure" if check.verdict == "worse" else "skipped"
            ET.SubElement(case, kind, message=_sentence(check)).text = check.method
    ET.indent(suite)
    write_text(
        path, '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"
    )


def append_summary(path: Path, result: GateResult) -> None:
    """Append the table in Markdown to a file (GitHub's `$GITHUB_STEP_SUMMARY`). Raises InputError."""
    try:
        with path.open("a", encoding="utf-8") as file:
            table = gate_table(result)
            file.write(f"### {table.title}\n\n{to_markdown(table)}\n")
    except OSError as problem:
        raise InputError(f"the summary cannot be written: {problem}", where=path) from None


def _sentence(check: Check) -> str:
    figures = f"{_text(check.base)} before, {_text(check.head)} now, {_change(check)}"
    return f"{check.name}: {figures}, limit {check.limit:g}"


def _change(check: Check) -> str:
    interval = "" if check.interval is None else " [{:+.3g}, {:+.3g}]".format(*check.interval)
    return _text(check.change) + interval


def _text(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.4g}"
