"""A model behind HTTP becomes a variant: asked once, measured, priced, and used like any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from compress.add_remote import ANSWERS, RemoteAddition, add_remote, cost_of
from contract.costs import read_costs
from contract.errors import FamilyError, InputError, TargetNotMet
from contract.family import Family, read_family
from contract.files import inside
from contract.policy import Policy, Stage
from contract.predictions import OUTSIDE
from report.sections.family_tables import inspect_table
from report.sections.frontier import beaten_by, best_by
from router.decide.simulate import simulate
from runtime.fake_family import write_fake_family
from runtime.load import load_variant
from runtime.stored import repeat_answers
from sluicegate.main import cli
from tables.predictions import read_predictions
from tests.support.known_model import Fault, KnownModel, asking, known_model

ROWS = 150
PRICE = 0.002


@pytest.fixture(scope="module")
def serving() -> Iterator[tuple[KnownModel, str]]:
    """One server for all tests here."""
    model = KnownModel(accuracy=0.99)
    with known_model(model) as url:
        yield model, url


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family of fakes, to be copied."""
    folder = tmp_path_factory.mktemp("plain")
    write_fake_family(folder, rows=ROWS)
    return folder


@pytest.fixture
def known(serving: tuple[KnownModel, str]) -> KnownModel:
    """The server's model, as new."""
    model, _ = serving
    model.__init__(accuracy=0.99)  # type: ignore[misc] # as new
    return model


@pytest.fixture
def folder(plain: Path, tmp_path: Path) -> Path:
    """A family of one's own."""
    shutil.copytree(plain, tmp_path / "family")
    return tmp_path / "family"


@pytest.fixture
def wanted(serving: tuple[KnownModel, str], folder: Path) -> RemoteAddition:
    """What is added: the known model as the reference."""
    model = asking(serving[1], usd_per_call=PRICE)
    return RemoteAddition("large", model, folder / ANSWERS, reference=True, alone=30)


def reread(folder: Path) -> tuple[Family, np.ndarray]:
    """The family as it lies there, hashes checked, and what the new variant predicts."""
    family = read_family(folder)
    assert family.predictions is not None
    table = read_predictions(inside(folder, family.predictions.path), labels=family.labels)
    return family, table.variants["large"].prediction


def test_a_remote_variant_is_measured_priced_and_tuned_with(
    known: KnownModel, folder: Path, wanted: RemoteAddition
) -> None:
    """Predictions, accuracy, deltas of all, latency, failures and price are in the family, and add up."""
    before = cost_of(folder, wanted)
    assert before.usd_left == pytest.approx(ROWS * PRICE)
    add_remote(folder, wanted, folder)
    family, predicted = reread(folder)
    variant = family.variant("large")
    texts = [row["text"] for row in _rows(folder, family)]
    assert predicted.tolist() == known.labels_of(texts)
    assert (family.teacher, variant.kind, variant.encoder) == ("large", "remote", "remote")
    assert variant.usd_per_1k == pytest.approx(1000 * PRICE)
    assert variant.accuracy is not None
    assert variant.accuracy > 0.95
    small = family.variant("fake-small")
    assert small.accuracy is not None
    assert small.accuracy_delta == pytest.approx(small.accuracy - variant.accuracy)
    alone = variant.latency_at()
    assert alone is not None
    assert (alone.n, alone.provider) == (30, "remote")
    measured = variant.remote
    assert measured is not None
    assert (measured.n, measured.calls, measured.failed, measured.unanswered) == (ROWS, ROWS, 0, 0)
    assert measured.quantiles_ms["p50"] <= measured.quantiles_ms["p99"]
    assert measured.tokens_in_per_text == 100
    assert family.costs is not None
    costs = read_costs(inside(folder, family.costs.path))
    assert (costs["large"].usd_per_1k, costs["large"].latency_ms) == (variant.usd_per_1k, alone.p50_ms)
    assert family.predictions is not None
    table = read_predictions(inside(folder, family.predictions.path))
    stages = (Stage(variant="fake-small", threshold=0.9), Stage(variant="large"))
    policy = Policy(status="uncertified", reference="large", stages=stages).sealed()
    figures = simulate(table, costs, policy).figures
    share = figures["escalation_rate"]
    assert figures["usd_per_1k"] == pytest.approx(costs["fake-small"].usd_per_1k + share * 1000 * PRICE)


def _rows(folder: Path, family: Family) -> list[dict[str, str]]:
    import pyarrow.parquet as pq

    assert family.data is not None
    rows: list[dict[str, str]] = pq.read_table(inside(folder, family.data.path)).to_pylist()
    return rows


def test_a_second_call_asks_nothing_and_replaces_the_variant(
    known: KnownModel, folder: Path, wanted: RemoteAddition, tmp_path: Path
) -> None:
    """The answers are kept: the same model at another price is one variant again, in another folder too."""
    add_remote(folder, wanted, folder)
    asked = len(known.asked)
    dearer = replace(wanted, model=wanted.model.model_copy(update={"usd_per_call": 0.004}))
    add_remote(folder, dearer, tmp_path / "other")
    family, _ = reread(tmp_path / "other")
    assert len(known.asked) == asked
    assert family.names.count("large") == 1
    assert family.variant("large").usd_per_1k == pytest.approx(4.0)
    assert reread(folder)[0].variant("large").usd_per_1k == pytest.approx(2.0)


def test_it_is_loaded_and_drawn_like_any_variant_but_not_run_again_for_nothing(
    known: KnownModel, folder: Path, wanted: RemoteAddition
) -> None:
    """The loader asks it; a look at this machine's answers does not; tables show no size and no energy."""
    family = add_remote(folder, wanted, folder)
    known.asked.clear()
    assert [one.variant for one in repeat_answers(folder, family)] == []
    assert known.asked == []
    loaded = load_variant(folder, family, "large")
    assert loaded.logits(["story 1"]).argmax(axis=1).tolist() == known.labels_of(["story 1"])
    loaded.runtime.close()
    assert "large" in str(inspect_table(family))
    assert "size" not in best_by(family)["large"]
    assert all("large" not in others for others in beaten_by(family).values())


def test_rows_that_it_declines_are_wrong_and_said(
    known: KnownModel, folder: Path, wanted: RemoteAddition
) -> None:
    """A refusal is a row without an answer: no logits then, a note, and a failure rate."""
    known.faults.append(Fault(200, body=b'{"answers": [{"type": "refusal"}]}'))
    family, predicted = (add_remote(folder, wanted, folder), reread(folder)[1])
    assert (predicted == OUTSIDE).sum() == 1
    variant = family.variant("large")
    assert variant.notes == (f"1 of {ROWS} rows have no answer of it",)
    assert variant.remote is not None
    assert variant.remote.failures == {"declined": 1}
    assert variant.remote.failure_rate == pytest.approx(1 / ROWS)


def test_a_model_that_says_no_probabilities_gets_its_confidence_by_fitting(
    known: KnownModel, folder: Path, wanted: RemoteAddition
) -> None:
    """Of bare labels the temperature makes the confidence what is right on the rows to tune on."""
    known.tells = False
    family = add_remote(folder, wanted, folder)
    assert family.predictions is not None
    table = read_predictions(inside(folder, family.predictions.path))
    rows = table.rows_of("tune")
    confidence = rows.variants["large"].confidence
    assert np.ptp(confidence) < 1e-6
    assert confidence[0] == pytest.approx(rows.correct("large").mean(), abs=0.01)


def test_what_stops_the_asking_changes_nothing_and_is_gone_on_from(
    known: KnownModel, folder: Path, wanted: RemoteAddition
) -> None:
    """Beyond the price, or with a wrong key, the family stays as it was; what was answered is kept."""
    before = read_family(folder)
    with pytest.raises(TargetNotMet, match=f"100 of {ROWS} rows are answered"):
        add_remote(folder, replace(wanted, max_usd=100 * PRICE), folder)
    known.key = "another"
    with pytest.raises(TargetNotMet, match="401"):
        add_remote(folder, wanted, folder)
    assert read_family(folder) == before
    known.key = None
    add_remote(folder, wanted, folder)
    assert sum(request.path == "/v1/decisions" for request in known.asked) <= ROWS + 8 + 1


def test_a_name_that_is_taken_and_a_record_that_does_not_fit_are_refused(
    folder: Path, wanted: RemoteAddition
) -> None:
    """Another variant's name, a label that there is not, and images for a family of texts."""
    with pytest.raises(FamilyError, match="fake-small"):
        cost_of(folder, replace(wanted, name="fake-small"))
    model = wanted.model
    with pytest.raises(InputError, match="lorry"):
        cost_of(folder, replace(wanted, model=asking(model.url, labels={"lorry": "big"})))
    with pytest.raises(InputError, match="inputs: text"):
        cost_of(folder, replace(wanted, model=model.model_copy(update={"inputs": "image"})))


def test_the_command_says_the_cost_first_and_asks_no_more_than_it_may(
    known: KnownModel, folder: Path, wanted: RemoteAddition, tmp_path: Path
) -> None:
    """A dry run asks nothing, a price must be allowed, and then the family is shown."""
    record = tmp_path / "large.yaml"
    record.write_text(json.dumps(wanted.model.dump()))
    call = ["family", "add", str(folder), str(record), "--name", "large"]
    run = CliRunner().invoke
    dry = run(cli, [*call, "--dry-run", "--json"])
    assert json.loads(dry.stdout)["usd_left"] == pytest.approx(ROWS * PRICE)
    assert run(cli, call).exit_code == 2
    over = run(cli, [*call, "--max-usd", "0.1"])
    assert isinstance(over.exception, InputError)
    assert known.asked == []
    done = run(cli, [*call, "--max-usd", "1", "--json", "--alone", "0"])
    assert done.exit_code == 0, done.output
    assert f"{ROWS} texts to ask, {ROWS * PRICE:.4g} USD" in done.stderr
    assert [one["name"] for one in json.loads(done.stdout)["variants"]][-1] == "large"
    assert "up to 8 were out" in read_family(folder).variant("large").notes[0]


def test_a_request_that_failed_is_no_wrong_answer_of_the_model(
    known: KnownModel, folder: Path, wanted: RemoteAddition
) -> None:
    """Nothing is written, and the next call asks for those rows alone; what it will not have is a hole."""
    before = read_family(folder)
    wanted = replace(wanted, model=wanted.model.model_copy(update={"retries": 0}), alone=ROWS)
    known.faults.extend([Fault(500), Fault(400)])
    with pytest.raises(TargetNotMet, match=r"2 texts got no reply \(1 broken \(HTTP 500\), 1 rejected"):
        add_remote(folder, wanted, folder)
    assert read_family(folder) == before
    known.asked.clear()
    known.faults.append(Fault(400))
    add_remote(folder, wanted, folder)
    family, predicted = reread(folder)
    assert len(known.asked) == 2
    assert (predicted == OUTSIDE).sum() == 1
    assert family.variant("large").notes[0] == f"1 of {ROWS} rows have no answer of it"


def test_many_rows_that_it_will_not_have_are_said_and_not_counted(
    known: KnownModel, folder: Path, wanted: RemoteAddition
) -> None:
    """More than one in a hundred is no property of the texts, and nothing is written."""
    known.faults.extend([Fault(400)] * 2)
    with pytest.raises(TargetNotMet, match="2 texts got no reply"):
        add_remote(folder, wanted, folder)
