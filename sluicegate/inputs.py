"""Where predictions and costs come from: a family, or two files in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from contract.costs import Cost, read_costs
from contract.errors import FamilyError
from contract.family import Family, read_family
from contract.files import inside
from contract.predictions import LabelValue, Predictions
from router.tune.settings import TuneSettings
from sluicegate.common import ANY_PATH, FILE, progress_console
from tables.predictions import read_predictions

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Table:
    """What a router works on. `family` is None when only files were given."""

    predictions: Predictions
    costs: Mapping[str, Cost]
    family: Family | None
    where: Path

    @property
    def artifacts(self) -> dict[str, str]:
        """The sha256 of every variant's artifact; empty without a family."""
        return {v.name: v.artifact.sha256 for v in self.family.variants} if self.family else {}

    @property
    def teacher(self) -> str | None:
        """The family's teacher, or the variant in its place; None without a family or where it has none."""
        variants = self.family.variants if self.family else ()
        if self.family is not None and self.family.heard is not None:
            return self.family.teacher
        own = None if self.family is None else self.family.teacher
        return next(
            (v.name for v in variants if v.kind == "teacher" or (v.kind == "remote" and v.name == own)), None
        )

    @property
    def machine(self) -> str | None:
        """The processor that gave the answers, with its instruction sets; None where nobody knows."""
        made = None if self.family is None else self.family.machine
        return None if made is None else f"{made.cpu} ({', '.join(made.isa) or 'plain'})"

    @property
    def stands_for(self) -> str | None:
        """The teacher that `teacher` stands for, because only its answers are known; else None."""
        heard = None if self.family is None else self.family.heard
        return None if heard is None else heard.name


def table_options(function: F) -> F:
    """Add `FAMILY`, `--predictions`, `--labels` and `--costs`."""
    for decorate in (
        click.option("--costs", type=FILE, help="costs.json: variant to usd_per_1k and more."),
        click.option(
            "--labels",
            help="With --predictions: the label set, comma-separated, in the order of the logits' columns. "
            "Default: the labels that occur, sorted.",
        ),
        click.option(
            "--predictions",
            type=ANY_PATH,
            help="A table of predictions in place of a family: Parquet, or CSV, JSON lines, Arrow by its "
            "ending; the format, with an example: docs/predictions.md.",
        ),
        click.argument("family", type=ANY_PATH, required=False),
    ):
        function = decorate(function)
    return function


def read_table(
    family: Path | None, predictions: Path | None, costs: Path | None, labels: str | None = None
) -> Table:
    """Read a family's predictions and costs, or those of two files, and tell what their user should know.

    Raises:
        click.UsageError: when neither or both are given.
        InputError: when what is given breaks a rule.
    """
    if (family is None) == (predictions is None):
        raise click.UsageError("give either FAMILY or --predictions P --costs C")
    if predictions is not None:
        if costs is None:
            raise click.UsageError("--predictions needs --costs")
        found = read_predictions(predictions, labels=_label_set(labels))
        for note in found.notes:
            progress_console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
        return Table(found, read_costs(costs), None, predictions)
    if labels is not None:
        raise click.UsageError("--labels goes with --predictions; a family has its own")
    if family is None or costs is not None:
        raise click.UsageError("--costs goes with --predictions; a family has its own")
    manifest = read_family(family)
    folder = family if family.is_dir() else family.parent
    if manifest.predictions is None or manifest.costs is None:
        raise FamilyError(
            "this family has no predictions", where=folder, hint="sluice compress RECIPE --out FAMILY"
        )
    return Table(
        read_predictions(inside(folder, manifest.predictions.path), labels=manifest.labels),
        read_costs(inside(folder, manifest.costs.path)),
        manifest,
        folder,
    )


def tune_settings(table: Table, asked: dict[str, Any], **more: Any) -> TuneSettings:
    """Return how to tune a table: what it tells itself, what every such command is asked, and `more`."""
    named = asked["variants"]
    return TuneSettings(
        reference=asked["reference"],
        teacher=table.teacher,
        stands_for=table.stands_for,
        variants=tuple(part.strip() for part in named.split(",")) if named else None,
        confidence=asked["confidence"],
        score=asked["score"],
        seed=asked["seed"],
        artifact_sha256=table.artifacts,
        machine=table.machine,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        **more,
    )


def _label_set(given: str | None) -> list[LabelValue] | None:
    """Return the labels of a comma-separated list: integers where all are."""
    if given is None:
        return None
    names = [name.strip() for name in given.split(",")]
    if "" in names or len(set(names)) != len(names):
        raise click.UsageError(f"--labels takes different names, comma-separated, not {given!r}")
    if all(name.isdecimal() for name in names):
        return [int(name) for name in names]
    return list(names)
