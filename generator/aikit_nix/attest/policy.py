"""What has to be true of an image before it runs: `verify --policy FILE`. TOML; no network is asked.

[signers]             # who may speak: a name, and the public key's file, beside this one
alice = "alice.pub"
ci = "ci.pub"

[require]
rebuilds = 2                        # so many of them built this very digest (`reproduce`)
summaries = 1                       # so many of them verified it (`verify`)
licenses = ["apache-2.0", "mit"]    # of models; one of them each
runtimes = ["avx2", "cuda"]
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from msgspec import Meta, Struct

from aikit_nix.attest import envelope, verdict
from aikit_nix.attest.envelope import Statement
from aikit_nix.base import files, typed_json
from aikit_nix.base.errors import error
from aikit_nix.base.redact import shown

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

_MAX_BYTES = 1 << 20


_Count: TypeAlias = Annotated[int, Meta(ge=1, lt=1000)]
_Names: TypeAlias = Annotated[tuple[str, ...], Meta(min_length=1)]


class Require(Struct, frozen=True, forbid_unknown_fields=True):
    """What is required; of lists, None is whatever there is."""

    rebuilds: _Count = 0
    summaries: _Count = 0
    licenses: _Names | None = None
    runtimes: _Names | None = None


class _Said(Struct, forbid_unknown_fields=True):
    require: Require = Require()
    signers: Mapping[str, str] = {}


@dataclass(frozen=True)
class Policy:
    """A policy, with its signers' keys; `digest` is the SHA-256 (hex) of the file."""

    digest: str
    signers: Mapping[str, PublicKeyTypes]
    require: Require


def read(path: Path) -> Policy:
    """The policy in a file. Raises AikitError, also for what it does not know: a misspelt requirement would require nothing."""
    data = files.read_bounded(path, _MAX_BYTES)
    with typed_json.refusing(f"{path} is no policy, or makes no sense", code="policy"):
        try:
            said = typed_json.convert(tomllib.loads(data.decode()), _Said)
        except RecursionError:
            raise ValueError("it nests too deep") from None
        if said.require == Require():
            raise ValueError("it requires nothing")
    keys = {name: envelope.public_key(path.parent / file) for name, file in said.signers.items()}
    most = len({_encoded(key) for key in keys.values()})
    for name, wanted in (("rebuilds", said.require.rebuilds), ("summaries", said.require.summaries)):
        if wanted > most:
            raise error(f"{path} wants {wanted} {name}, and names {most} keys that could sign one", code="policy")
    return Policy(hashlib.sha256(data).hexdigest(), keys, said.require)


def broken(
    policy: Policy, digest: str, statements: Sequence[Statement], own: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """Why an image, whose manifest has a digest, does not fulfil a policy.

    `own` is what the flake says of it (`verdict.about`), where it was shown to be what the flake gives; else the signed
    rebuilds say it.
    """
    rebuilds = _signed(policy, statements, verdict.REBUILD)
    summaries = [
        (signers, each)
        for signers, each in _signed(policy, statements, verdict.SUMMARY)
        if each.predicate.get("verificationResult") == "PASSED"
    ]
    yield from _too_few(policy.require.rebuilds, "rebuilds", digest, rebuilds)
    yield from _too_few(policy.require.summaries, "verification summaries", digest, summaries)
    said = [own] if own else [each.predicate for _, each in rebuilds if each.is_about(digest)]
    for wanted, what, values in (
        (policy.require.runtimes, "runtime", lambda each: [each.get("runtime")]),
        (policy.require.licenses, "licence of a model", _licenses),
    ):
        if wanted is not None:
            if not said:
                yield f"nobody says the {what}: name the flake, or a signed rebuild"
            for value in {str(value) for each in said for value in values(each)} - set(wanted):
                yield f"the {what} is {shown(value)}, and the policy allows {', '.join(wanted)}"


def _licenses(about: Mapping[str, Any]) -> list[object]:
    models = about.get("models")
    if not isinstance(models, list) or not all(isinstance(each, dict) for each in models):
        return ["not known"]
    return [each.get("license") or "not known" for each in models]


def _signed(policy: Policy, statements: Iterable[Statement], kind: str) -> list[tuple[set[bytes], Statement]]:
    """The statements of a kind that somebody of the policy signed, with the keys that did."""
    said = [each for each in statements if each.predicate_type == kind]
    found = [({_encoded(key) for key in policy.signers.values() if each.is_signed_by(key)}, each) for each in said]
    return [(keys, each) for keys, each in found if keys]


def _too_few(wanted: int, what: str, digest: str, statements: Sequence[tuple[set[bytes], Statement]]) -> Iterator[str]:
    keys = {key for signers, each in statements if each.is_about(digest) for key in signers}
    if len(keys) < wanted:
        others = sorted({subject for _, each in statements for subject in each.subjects()} - {digest})
        but = f"; others are about {', '.join(map(shown, others[:3]))}" if others else ""
        yield f"{len(keys)} of {wanted} {what} that the policy wants are about {digest}{but}"


def _encoded(key: PublicKeyTypes) -> bytes:
    """One key under two names is one signer."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
