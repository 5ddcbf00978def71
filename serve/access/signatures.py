"""Signatures of policies: Ed25519 (RFC 8032) over a policy's version, which is the hash of its content."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from contract.errors import InputError, PolicyError
from contract.policy import Policy, Signature

_MEANT = b"sluicegate policy 1\n"
"""Before what is signed: a signature that the same key made for another purpose is none of a policy."""
_KEY_BYTES = 32


def new_key() -> tuple[str, str]:
    """Return a private key and its public key, both in base64."""
    key = Ed25519PrivateKey.generate()
    return _text(key.private_bytes_raw()), _text(key.public_key().public_bytes_raw())


def public_key_of(private_key: str) -> str:
    """Return the public key of a private one. Raises InputError."""
    return _text(_private(private_key).public_key().public_bytes_raw())


def signed(policy: Policy, private_key: str) -> Policy:
    """Return the policy with a signature of that key, in place of an earlier one of the same key.

    Raises:
        InputError: that is no private key.
    """
    key = _private(private_key)
    public_key = _text(key.public_key().public_bytes_raw())
    made = Signature(public_key=public_key, signature=_text(key.sign(_message(policy))))
    others = tuple(one for one in policy.signatures if one.public_key != public_key)
    return policy.model_copy(update={"version": policy.content_sha256(), "signatures": (*others, made)})


class Signers:
    """Whose signature a policy needs to come into force.

    Args:
        public_keys: in base64; one of them must have signed. None: any policy may come into force.

    Raises:
        InputError: one of them is no public key.
    """

    def __init__(self, public_keys: Sequence[str] = ()) -> None:
        self._keys = {_text(_raw(key, "policy_keys")): _public(key) for key in public_keys}

    def check(self, policy: Policy) -> None:
        """Raise PolicyError unless one of the keys signed just this policy."""
        if not self._keys:
            return
        for one in policy.signatures:
            key = self._keys.get(one.public_key)
            if key is not None and _is_of(key, one.signature, policy):
                return
        by = ", ".join(one.public_key for one in policy.signatures)
        raise PolicyError(
            f"policy {policy.content_sha256()[:12]} "
            + (
                f"is signed by {by}: none of the keys that this gateway trusts signed it"
                if by
                else "is not signed, and this gateway takes only signed ones"
            ),
            hint="sluice policy sign POLICY --key FILE, with a key of access.policy_keys",
        )


def verified(policy: Policy) -> list[tuple[str, bool]]:
    """Return each signature's public key, and whether it signed just this policy."""
    found = []
    for one in policy.signatures:
        try:
            found.append((one.public_key, _is_of(_public(one.public_key), one.signature, policy)))
        except InputError:
            found.append((one.public_key, False))
    return found


def _is_of(key: Ed25519PublicKey, signature: str, policy: Policy) -> bool:
    try:
        key.verify(base64.b64decode(signature, validate=True), _message(policy))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def _message(policy: Policy) -> bytes:
    return _MEANT + policy.content_sha256().encode()


def _private(text: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(_raw(text, "the key file"))


def _public(text: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(_raw(text, "a public key"))


def _raw(text: str, what: str) -> bytes:
    try:
        found = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != _KEY_BYTES:
        raise InputError(
            f"{what} holds no Ed25519 key: 32 bytes in base64", hint="sluice policy keygen FILE makes one"
        )
    return found


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
