"""Policies: content-addressed, checked, and bound to the artifacts that were certified."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from contract.errors import PolicyError
from contract.family import Artifact, EncoderSpec, Family, Variant
from contract.policy import (
    Certificate,
    CertifiedTarget,
    Policy,
    Stage,
    check_policy_fits,
    parse_policy,
    read_policy,
    single_variant_policy,
    write_policy,
)

SHA = "a" * 64


def _raw(**changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = {
        "schema": 1,
        "status": "uncertified",
        "reference": "teacher",
        "stages": [{"variant": "linear", "threshold": 0.8}, {"variant": "teacher"}],
    }
    return value | changes


def _family() -> Family:
    def variant(name: str) -> Variant:
        return Variant(
            name=name,
            kind="fake",
            runtime="fake",
            encoder="e",
            artifact=Artifact(path=name, sha256=SHA, bytes=1),
        )

    return Family(
        name="toy",
        labels=("a", "b"),
        teacher="teacher",
        encoders={"e": EncoderSpec(kind="fake", sha256=SHA)},
        variants=(variant("linear"), variant("teacher")),
    )


def test_a_written_policy_reads_back_equal(tmp_path: Path) -> None:
    """Writing and reading a policy keeps content and version."""
    policy = parse_policy(_raw())
    write_policy(tmp_path / "p.json", policy)
    assert read_policy(tmp_path / "p.json") == policy
    assert len(policy.version) == 64


def test_an_edited_policy_is_refused() -> None:
    """A changed threshold under an old version is an error that says so."""
    raw = parse_policy(_raw()).dump()
    raw["stages"][0]["threshold"] = 0.1
    with pytest.raises(PolicyError, match="edited"):
        parse_policy(raw)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"schema": 99}, "schema"),
        ({"stages": []}, "stages"),
        ({"stages": [{"variant": "a"}, {"variant": "b"}]}, "needs a threshold"),
        ({"stages": [{"variant": "a", "threshold": 0.5}]}, "always answers"),
        ({"stages": [{"variant": "a", "threshold": 0.5}, {"variant": "a"}]}, "two stages"),
        ({"status": "certified"}, "no certificate"),
        ({"status": "fine"}, "status"),
        (
            {
                "stages": [
                    {"variant": "a", "threshold": 0.5, "per_class": {"x": {"threshold": 1, "next": "q"}}},
                    {"variant": "b"},
                ]
            },
            "not one of the later stages",
        ),
    ],
)
def test_broken_policies_are_refused_by_rule(changes: dict[str, Any], rule: str) -> None:
    """Each broken rule is named."""
    with pytest.raises(PolicyError, match=rule):
        parse_policy(_raw(**changes))


def test_what_json_cannot_hold_is_refused() -> None:
    """A version is the hash of the JSON, and half a surrogate pair and infinity have no JSON."""
    stages = [{"variant": "linear", "threshold": 0.8, "temperature": math.inf}, {"variant": "teacher"}]
    for raw in (_raw(reference="a\ud800", stages=[{"variant": "a\ud800"}]), _raw(stages=stages)):
        with pytest.raises(PolicyError, match=r"JSON has no form for|finite"):
            parse_policy(raw)


def test_a_policy_fits_only_a_family_that_has_its_stages() -> None:
    """A stage that the family lacks, and a label it lacks, are refused by name."""
    check_policy_fits(parse_policy(_raw()), _family())
    with pytest.raises(PolicyError, match="'other'"):
        check_policy_fits(single_variant_policy("other"), _family())
    raw = _raw()
    raw["stages"][0]["per_class"] = {"zzz": {"threshold": 0.5}}
    with pytest.raises(PolicyError, match="zzz"):
        check_policy_fits(parse_policy(raw), _family())


def test_a_certificate_does_not_fit_another_build() -> None:
    """A certificate made for other artifact hashes is refused."""
    certificate = {
        "method": "m", "epsilon": 0.02, "delta": 0.1, "n_tune": 1, "n_certify": 1, "seed": 0,
        "data_sha256": SHA, "variants": {"linear": "b" * 64},
    }  # fmt: skip
    policy = Policy.model_validate(_raw(status="certified", certificate=certificate)).sealed()
    with pytest.raises(PolicyError, match="another build"):
        check_policy_fits(policy, _family())


def test_single_variant_policy_has_one_stage() -> None:
    """The policy of one variant answers everything with it."""
    assert single_variant_policy("teacher").stages == (Stage(variant="teacher"),)


def test_a_certificate_lists_every_target_it_covers() -> None:
    """Targets of a certificate survive writing and reading."""
    target = CertifiedTarget(metric="accuracy_drop", epsilon=0.01, method="betting")
    certificate = Certificate(
        method="m", epsilon=0.01, delta=0.1, n_tune=1, n_certify=2, seed=0, data_sha256="", targets=(target,)
    )
    assert Certificate.model_validate(certificate.model_dump(mode="json")).targets == (target,)
