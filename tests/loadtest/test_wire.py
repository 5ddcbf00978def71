"""Bytes on the wire, files between processes, and counters in a scrape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest import protocol
from loadtest.exchange import Order, Samples, Send, pack, unpack
from loadtest.protocol import Answer, read_answer, read_refusal
from loadtest.scrape import Reading, difference, parse_metrics


def test_requests_have_the_two_wire_forms() -> None:
    """v1 names the model in the body, OIP in the path."""
    assert protocol.path("v1", "m") == "/v1/classify"
    assert json.loads(protocol.body("v1", "m", "é")) == {"inputs": "é", "model": "m"}
    assert protocol.path("oip", "a/b") == "/v2/models/a%2Fb/infer"
    sent = json.loads(protocol.body("oip", "m", "x"))
    assert sent == {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["x"]}]}


def test_answers_are_read_from_both_forms() -> None:
    """Label, confidence, variant, escalation and policy come out of either form."""
    v1 = {
        "outputs": [
            {"label": "a", "confidence": 0.5, "variant": "v", "escalated": True, "degraded": False}
        ],
        "model": "cascade", "policy_version": "p",
    }  # fmt: skip
    assert read_answer("v1", json.dumps(v1).encode()) == Answer("a", 0.5, "v", True, False, "p")
    oip = {
        "outputs": [
            {"name": "label", "data": ["a"]}, {"name": "confidence", "data": [0.5]},
            {"name": "variant", "data": ["v"]}, {"name": "escalated", "data": [True]},
        ],
        "parameters": {"policy_version": "p"},
    }  # fmt: skip
    assert read_answer("oip", json.dumps(oip).encode()) == Answer("a", 0.5, "v", True, None, "p")


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ({"label": 1.0, "confidence": "0.5", "variant": 3, "escalated": "no"}, Answer("1")),
        ({"label": True, "confidence": 1e400}, Answer("true")),
        ({"label": " pos ", "confidence": 1, "variant": "v\ud83d", "degraded": 0}, Answer("pos", 1.0, "v?")),
        ({"label": None}, None),
        ({"label": "\ud83d"}, None),
        ({"label": ["a", "b"]}, None),
        ({"label": "a", "confidence": 10**400}, Answer("a")),
    ],
)
def test_what_another_server_says_is_kept_where_it_has_our_type(
    said: dict[str, Any], answer: Answer | None
) -> None:
    """Labels are spelled as in data; a table of other types would end the run after its last request."""
    raw = json.dumps({"outputs": [said], "policy_version": 7}).encode()
    assert read_answer("v1", raw) == answer


@given(
    st.binary(max_size=60)
    | st.sampled_from([b"[]", b"{}", b'{"outputs": []}', b'{"outputs": [1]}', b"[" * 5000])
)
def test_a_body_that_is_no_answer_is_none(raw: bytes) -> None:
    """Whatever a server sends, reading it never raises."""
    assert read_answer("v1", raw) is None
    assert read_answer("oip", raw) is None


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_packed_bytes_come_back(items: list[bytes]) -> None:
    """Packing byte strings loses nothing, empty ones included."""
    assert unpack(*pack(items)) == tuple(items)


def test_the_exchange_files_read_back_equal(tmp_path: Path) -> None:
    """What the runner writes is what the generator reads, and the other way round."""
    order = Order("h", 1, False, "POST", "m", 2.0, 3, 4, None, 5)
    order.write(tmp_path)
    assert Order.read(tmp_path) == order
    send = Send(np.array([0.0, 0.5]), np.array([1, 0]), (b"x", b""))
    send.write(tmp_path)
    again = Send.read(tmp_path)
    assert (again.at_s.tolist(), again.which.tolist(), again.bodies) == ([0.0, 0.5], [1, 0], (b"x", b""))
    x = np.array([1.0])
    samples = Samples(1e9, x, x + 1, x + 2, np.array([200], np.int32), (b"r",), 0.25, True)
    samples.write(tmp_path)
    back = Samples.read(tmp_path)
    assert (back.start_at_s, back.cpu_share, back.stopped_early) == (1e9, 0.25, True)
    assert (back.done.tolist(), back.status.tolist(), back.replies) == ([3.0], [200], (b"r",))


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b'{"error": "no model x"}', "no model x"),
        (b'{"error": {"message": "the key is not valid", "type": "auth"}}', "the key is not valid"),
        (b"<html>\n Bad  Gateway", "<html> Bad Gateway"),
        (b"[]", "[]"),
        (b"\xff", "\ufffd"),
        (b"", None),
    ],
)
def test_a_refusal_is_read_in_the_form_it_has(raw: bytes, told: str | None) -> None:
    """Our error form, OpenAI's, and whatever a proxy says, in one line."""
    assert read_refusal(raw) == told
    assert len(read_refusal(b"x" * 5000) or "") == 200


PAGE = """# TYPE sluice_requests counter
sluice_requests_total{model="cascade",variant="a",outcome="ok"} %d
sluice_requests_total{model="cascade",variant="b",outcome="overloaded"} 1
sluice_cpu_seconds_total{variant="a"} %f
sluice_cpu_seconds_total{variant="gateway"} 1.0
sluice_energy_joules_total{provenance="estimated-load"} %f
"""


def test_use_is_the_difference_of_two_readings() -> None:
    """Requests, CPU time by variant and energy are what the counters grew by."""
    use = difference(parse_metrics(PAGE % (10, 2.0, 100), 5.0), parse_metrics(PAGE % (30, 2.5, 160), 9.0))
    assert use is not None
    assert (use.served, use.window_s, use.joules, use.provenance) == (20, 4.0, 60, "estimated-load")
    assert use.cpu_seconds == {"a": 0.5, "gateway": 0.0}
    assert use.dynamic_joules is None
    assert use.loaded_joules == 60


def test_energy_above_idle_leaves_the_generator_out() -> None:
    """Of the energy above idle, the server bears the share of its own CPU time beside the generator's."""
    use = difference(
        parse_metrics(PAGE % (10, 2.0, 100), 5.0), parse_metrics(PAGE % (30, 5.0, 160), 9.0),
        idle_watts=10.0, beside_cpu_share=0.25,
    )  # fmt: skip
    assert use is not None
    assert use.dynamic_joules == pytest.approx((60 - 40) * 3 / (3 + 1))
    assert use.loaded_joules == pytest.approx(40 + 15)


def test_energy_is_taken_to_the_next_step_of_its_counter_less_the_idle_time() -> None:
    """Joules counted up to 2 s after the load lose 2 s of idle power, or their share of the time."""
    pages = [parse_metrics(PAGE % (n, cpu, joules), at) for n, cpu, joules, at in
             [(10, 2.0, 100, 5.0), (30, 3.0, 130, 9.0), (30, 3.0, 160, 11.0)]]  # fmt: skip
    known = difference(pages[0], pages[1], stepped=pages[2], idle_watts=5.0)
    unknown = difference(pages[0], pages[1], stepped=pages[2])
    assert known is not None
    assert unknown is not None
    assert (known.joules, unknown.joules, known.window_s) == (60 - 10, 60 * 4 / 6, 4.0)
    assert known.dynamic_joules == 50 - 20


def test_counters_that_went_back_say_nothing() -> None:
    """A restarted server gives no figures rather than wrong ones."""
    later, earlier = parse_metrics(PAGE % (30, 2.5, 160), 5.0), parse_metrics(PAGE % (1, 0.1, 1), 9.0)
    assert difference(later, earlier) is None
    assert difference(None, earlier) is None


def test_a_page_without_our_metrics_has_no_figures() -> None:
    """What a server does not report is None, never 0."""
    reading = parse_metrics("python_gc_total 3\n", 1.0)
    assert reading == Reading(1.0, None, None, None)
    use = difference(reading, Reading(2.0, None, None, None))
    assert use is not None
    assert (use.served, use.cpu_seconds, use.joules, use.provenance) == (None, None, None, "none")


def test_what_models_elsewhere_charged_is_summed_over_families_and_stages() -> None:
    """The series may begin during the run: before it there was nothing to charge."""
    before = parse_metrics("sluice_requests_total 3\n", 1.0)
    line = 'sluice_remote_usd_total{family="%s",stage="large"} %g\n'
    after = parse_metrics("sluice_requests_total 13\n" + line % ("a", 0.25) + line % ("b", 0.5), 2.0)
    use = difference(before, after)
    assert use is not None
    assert use.charged_usd == 0.75


def test_an_abstention_is_read_from_both_forms() -> None:
    """There is no label in it, and it is an answer of the protocol all the same."""
    v1 = {"outputs": [{"label": None, "confidence": 0.4, "variant": "abstain", "abstained": True}]}
    found = read_answer("v1", json.dumps(v1).encode())
    assert found == Answer(None, 0.4, "abstain", abstained=True)
    oip = {"outputs": [{"name": "label", "data": [""]}, {"name": "abstained", "data": [True]}]}
    assert read_answer("oip", json.dumps(oip).encode()) == Answer(None, abstained=True)
