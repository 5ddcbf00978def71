"""Signed policies: who vouches for one, and a gateway that takes no other by any way in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from contract.errors import InputError, PolicyError
from contract.live import FamilyReference
from contract.policy import Policy, Stage, parse_policy, read_policy, write_policy
from serve.access.signatures import Signers, new_key, public_key_of, signed, verified
from serve.control.bootstrap import assign
from serve.control.plane import ControlPlane, Examined
from serve.control.revision_store import first_revision, open_revisions
from serve.settings.gateway import Settings
from sluicegate.main import cli
from tests.serve.parts import FakeFolder, WillingReplicas, two_stage_policy

PRIVATE, PUBLIC = new_key()
OTHER, _ = new_key()


def test_a_signature_changes_no_version_and_survives_the_way_through_json() -> None:
    """It stands beside what is hashed, so that certificates, revisions and metrics know the same policy."""
    policy = two_stage_policy()
    found = signed(policy, PRIVATE)
    assert found.version == policy.version
    again = parse_policy(json.loads(json.dumps(found.dump())))
    assert again == found
    assert verified(again) == [(PUBLIC, True)]
    assert public_key_of(PRIVATE) == PUBLIC
    Signers([PUBLIC]).check(again)
    assert "signatures" not in policy.dump()


@pytest.mark.parametrize(
    "policy",
    [
        two_stage_policy(),
        signed(two_stage_policy(), OTHER),
        two_stage_policy(deadline_ms=5.0).model_copy(
            update={"signatures": signed(two_stage_policy(), PRIVATE).signatures}
        ),
    ],
    ids=["unsigned", "by another key", "of another policy"],
)
def test_any_other_policy_is_refused(policy: Policy) -> None:
    """Without a signature, with a stranger's, or with one that was made for another policy."""
    with pytest.raises(PolicyError, match="signed"):
        Signers([PUBLIC]).check(policy)
    Signers().check(policy)


def test_several_may_sign() -> None:
    """One that is trusted is enough, and signing again replaces one's own signature."""
    both = signed(signed(signed(two_stage_policy(), OTHER), PRIVATE), OTHER)
    assert len(both.signatures) == 2
    Signers([PUBLIC]).check(both)


@pytest.mark.parametrize("key", ["", "no key", "AAAA"])
def test_what_is_no_key_is_refused(key: str) -> None:
    """With the command that makes one."""
    with pytest.raises(InputError, match="no Ed25519 key"):
        Signers([key])
    with pytest.raises(InputError, match="no Ed25519 key"):
        signed(two_stage_policy(), key)


@pytest.mark.anyio
async def test_push_and_rollback_take_signed_ones_alone(fake_folder: FakeFolder, tmp_path: Path) -> None:
    """Whatever becomes a revision is checked, trials too, and nothing has changed after a refusal."""
    state = open_revisions(str(tmp_path))
    family = fake_folder.family
    reference = FamilyReference(name=family.name, sha256=family.sha256, path=str(fake_folder.folder))
    state.commit(first_revision(two_stage_policy(), reference, "seed"))
    plane = ControlPlane(
        state, lambda _: Examined(family, {}), WillingReplicas(), check_signed=Signers([PUBLIC]).check
    )
    with pytest.raises(PolicyError, match="takes only signed ones"):
        await plane.push(two_stage_policy(deadline_ms=9.0).dump())
    await plane.push(signed(two_stage_policy(deadline_ms=9.0), PRIVATE).dump())
    with pytest.raises(PolicyError, match="takes only signed ones"):
        await plane.rollback(1)
    latest = state.latest()
    assert latest is not None
    assert (latest.number, len(latest.policy.signatures)) == (2, 1)


def test_a_gateway_does_not_start_with_another(fake_folder: FakeFolder, tmp_path: Path) -> None:
    """Neither with the policy of its settings, nor with one that its state has in force."""
    path = tmp_path / "policy.json"
    asked = {
        "family": str(fake_folder.folder), "policy": str(path), "state": str(tmp_path / "state"),
        "access": {"policy_keys": [PUBLIC]},
    }  # fmt: skip
    write_policy(path, two_stage_policy())
    with pytest.raises(PolicyError, match="takes only signed ones"):
        assign(Settings.model_validate(asked), tmp_path)
    write_policy(path, signed(two_stage_policy(), PRIVATE))
    assert assign(Settings.model_validate(asked), tmp_path).families
    asked["access"] = {"policy_keys": [public_key_of(OTHER)]}
    write_policy(path, signed(two_stage_policy(), OTHER))
    with pytest.raises(PolicyError, match="none of the keys"):
        assign(Settings.model_validate(asked), tmp_path)


def test_the_commands_make_a_key_and_sign(tmp_path: Path) -> None:
    """The private half is for its owner alone, is never overwritten, and is not told."""
    key, path = tmp_path / "release.key", tmp_path / "policy.json"
    write_policy(path, Policy(status="uncertified", reference="a", stages=(Stage(variant="a"),)))
    made = CliRunner().invoke(cli, ["policy", "keygen", str(key)])
    assert made.exit_code == 0
    assert key.stat().st_mode & 0o777 == 0o600
    public_key = made.output.split()[0]
    assert key.read_text().strip() not in made.output
    assert CliRunner().invoke(cli, ["policy", "keygen", str(key)]).exit_code != 0
    done = CliRunner().invoke(cli, ["policy", "sign", str(path), "--key", str(key)])
    assert done.exit_code == 0
    assert verified(read_policy(path)) == [(public_key, True)]
