"""Where predictions and costs come from: a family, or two files in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from contract.costs import Cost, read_costs
from contract.errors import FamilyError
from contract.family import Family, read_family
from contract.files import inside
from contract.predictions import Predictions, read_predictions
from sluicegate.common import ANY_PATH, FILE

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
        """The name of the family's teacher; None without a family or where it has none."""
        variants = self.family.variants if self.family else ()
        return next((v.name for v in variants if v.kind == "teacher"), None)


def table_options(function: F) -> F:
    """Add `FAMILY`, `--predictions` and `--costs`."""
    for decorate in (
        click.option("--costs", type=FILE, help="costs.json: variant to usd_per_1k and more."),
        click.option("--predictions", type=FILE, help="predictions.parquet in place of a family."),
        click.argument("family", type=ANY_PATH, required=False),
    ):
        function = decorate(function)
    return function


def read_table(family: Path | None, predictions: Path | None, costs: Path | None) -> Table:
    """Read a family's predictions and costs, or those of two files.

    Raises:
        click.UsageError: when neither or both are given.
        InputError: when what is given breaks a rule.
    """
    if (family is None) == (predictions is None):
        raise click.UsageError("give either FAMILY or --predictions P --costs C")
    if predictions is not None:
        if costs is None:
            raise click.UsageError("--predictions needs --costs")
        return Table(read_predictions(predictions), read_costs(costs), None, predictions)
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
