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
from typing import TYPE_CHECKING, Any

from aikit_nix.attest import envelope, verdict
from aikit_nix.attest.envelope import Statement
from aikit_nix.base import files
from aikit_nix.base.errors import error
from aikit_nix.base.redact import shown

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Policy:
    """What is required; `digest` is the SHA-256 (hex) of the file. Of lists, None is whatever there is."""

    digest: str
    signers: Mapping[str, PublicKeyTypes]
    rebuilds: int = 0
    summaries: int = 0
    licenses: tuple[str, ...] | None = None
    runtimes: tuple[str, ...] | None = None


def read(path: Path) -> Policy:
    """The policy in a file. Raises AikitError, also for what it does not know: a misspelt requirement would require nothing."""
    data = files.read_bounded(path, _MAX_BYTES)
    try:
        value = tomllib.loads(data.decode())
        wanted = value.get("require", {})
        if unknown := [*(value.keys() - {"signers", "require"}), *(wanted.keys() - _KINDS.keys())]:
            raise ValueError(f"{min(unknown)!r} is not known")
        if not wanted:
            raise ValueError("it requires nothing")
        for name, each in wanted.items():
            if not _KINDS[name](each):
                raise ValueError(f"{name} = {each!r} makes no sense")
        signers = {str(name): path.parent / str(file) for name, file in value.get("signers", {}).items()}
    except (ValueError, TypeError, AttributeError) as bad:
        what = " ".join(str(bad).split())[:200]
        raise error(f"{path} is no policy ({what})", code="policy") from None
    keys = {name: envelope.public_key(file) for name, file in signers.items()}
    most = len({_encoded(key) for key in keys.values()})
    for name in ("rebuilds", "summaries"):
        if wanted.get(name, 0) > most:
            raise error(f"{path} wants {wanted[name]} {name}, and names {most} keys that could sign one", code="policy")
    return Policy(
        hashlib.sha256(data).hexdigest(),
        keys,
        wanted.get("rebuilds", 0),
        wanted.get("summaries", 0),
        tuple(wanted["licenses"]) if "licenses" in wanted else None,
        tuple(wanted["runtimes"]) if "runtimes" in wanted else None,
    )


def _is_count(value: object) -> bool:
    return type(value) is int and 1 <= value < 1000


def _is_list(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)


_KINDS = {"rebuilds": _is_count, "summaries": _is_count, "licenses": _is_list, "runtimes": _is_list}


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
    yield from _too_few(policy.rebuilds, "rebuilds", digest, rebuilds)
    yield from _too_few(policy.summaries, "verification summaries", digest, summaries)
    said = [own] if own else [each.predicate for _, each in rebuilds if each.is_about(digest)]
    for wanted, what, values in (
        (policy.runtimes, "runtime", lambda each: [each.get("runtime")]),
        (policy.licenses, "licence of a model", _licenses),
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
