"""A repository in a registry: manifests and blobs by the OCI distribution specification, with the user's login.

On our own HTTP client. The Python clients that there are do not fit: oras (requests) neither resumes nor mounts and
ignores DOCKER_CONFIG, python-dxf does not resume, and both read a blob only from a file of its own.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import SplitResult, quote, urlencode, urljoin, urlsplit

from aikit_nix.base import redact, typed_json
from aikit_nix.base.errors import AikitError, error
from aikit_nix.http.client import Answer, Backoff, Client, HttpError, Trouble
from aikit_nix.http.proxies import is_loopback
from aikit_nix.registry import challenges, credentials, reference
from aikit_nix.registry.manifest import INDEX, MANIFEST, Manifest
from aikit_nix.registry.reference import digest_of

T = TypeVar("T")

_ACCEPT = ", ".join((*MANIFEST, *INDEX))
_LIMIT = 4 << 20  # bytes of a manifest: the specification asks registries to take that much
_LIMIT_SAID = re.compile(r"quota|exceed|limit|immutab|overwrit|too large|storage", re.IGNORECASE)


class Repository:
    """One repository, for `actions` (`pull`, or `pull,push`). Every method raises AikitError."""

    def __init__(
        self,
        client: Client,
        registry: str,
        name: str,
        *,
        actions: str = "pull",
        insecure: bool | None = None,
        sources: Sequence[str] = (),
    ) -> None:
        """`sources` are the registry's other repositories that blobs may be mounted from.

        `insecure` is plain HTTP, its contrary TLS that is verified. Where it is not said, a registry on this machine is
        asked in TLS first, of whatever certificate, and then in plain HTTP, as docker does; all others in TLS.
        """
        self.client = client
        self.registry = registry
        self.name = name
        self._reads = actions == "pull"
        self._scopes = [f"repository:{name}:{actions}", *(f"repository:{source}:pull" for source in sources)]
        self._insecure = insecure
        self._authorization: str | None = None
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return f"{self.registry}/{self.name}"

    @cached_property
    def _base(self) -> str:
        there = urlsplit(f"//{self.registry}")
        insecure = self._insecure
        if insecure is None and is_loopback(there.hostname or ""):
            insecure = not self.client.speaks_tls(there.hostname or "", there.port or 443)
        return f"{'http' if insecure else 'https'}://{reference.host(self.registry)}"

    def url(self, path: str) -> str:
        """The address of something in the repository: `manifests/latest`, `blobs/sha256:…`."""
        return f"{self._base}/v2/{self.name}/{path}"

    def address(self, base: str, said: str, what: str) -> str:
        """Where the registry sends `what`, as it says in an answer from `base`.

        Raises AikitError where that is no address, or not encrypted while the registry is.
        """
        own = urlsplit(self._base)
        try:
            target = urlsplit(urljoin(base, said))
            is_own = target.netloc == own.netloc or _place(target) == _place(own)
        except ValueError:
            raise error(f"{self} sends {what} to {redact.shown(said)}, which is no address", code="registry") from None
        if is_own:
            # behind a proxy, a registry may not know that it is asked over TLS, or name the port that goes without saying
            target = target._replace(scheme=own.scheme, netloc=own.netloc)
        if target.scheme not in ("http", "https") or (own.scheme == "https" and target.scheme == "http"):
            raise error(
                f"{self} sends {what} to {redact.blank(target.geturl())}, which is not encrypted", code="registry"
            )
        return target.geturl()

    def headers(self) -> dict[str, str]:
        """The Authorization header that the registry asked for, if it asked yet."""
        return {"Authorization": self._authorization} if self._authorization else {}

    def manifest(self, reference: str) -> Manifest:
        """The manifest of a tag or digest; its bytes are checked against the digest."""
        answer = self.get(f"manifests/{reference}", {"Accept": _ACCEPT}, limit=_LIMIT)
        digest = digest_of(answer.body)
        said = answer.headers.get("Docker-Content-Digest")
        wanted = reference if reference.startswith("sha256:") else said
        if wanted and wanted.startswith("sha256:") and wanted != digest:
            raise error(
                f"{self}: the manifest {reference} has the digest {digest}, not {redact.shown(wanted)}", code="registry"
            )
        with typed_json.refusing(f"{self}: {reference} is no manifest", code="registry"):
            content = typed_json.decode(answer.body, dict[str, Any])
        media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        return Manifest(str(content.get("mediaType") or media_type), digest, answer.body, content)

    def blob(self, digest: str, limit: int = _LIMIT) -> bytes:
        """A small blob, checked."""
        body = self.get(f"blobs/{digest}", limit=limit).body
        if digest_of(body) != digest:
            raise error(f"{self}: the blob {digest} has other bytes than its digest says", code="registry")
        return body

    def get(self, path: str, headers: Mapping[str, str] | None = None, *, limit: int = _LIMIT) -> Answer:
        """A small answer, with the login where the registry asks for one."""
        try:
            return self.asked(
                lambda login: self.client.get(self.url(path), headers={**(headers or {}), **login}, limit=limit)
            )
        except HttpError as refused:
            raise self.refused(refused, path) from None

    def asked(self, action: Callable[[Mapping[str, str]], T]) -> T:
        """What an action gives that is told the headers of the login; done again where those are no longer taken.

        Raises what the action raises.
        """
        login = self.headers()
        try:
            return action(login)
        except HttpError as refused:
            if refused.status != 401 or not self.renew(refused, login):
                raise
        return action(self.headers())

    def renew(self, refused: HttpError, login: Mapping[str, str]) -> bool:
        """Whether there are now other headers than those of the login that was refused (401). Raises AikitError."""
        with self._lock:
            # another thread may have been here first
            return self.headers() != login or self.authorize(refused)

    def has(self, digest: str, size: int) -> bool:
        """Whether a blob is there. Raises AikitError for a registry that says so of another one."""
        path = f"blobs/{digest}"
        try:
            answer = self.head(path)
        except HttpError as refused:
            if refused.status == 404:
                return False
            raise self.refused(refused, path) from None
        self.agrees(answer.headers, digest)
        length = answer.headers.get("Content-Length")
        if length not in (None, "0", str(size)) and answer.status == 200:
            raise error(f"{self} has {redact.shown(str(length))} bytes as {digest}, which are {size}", code="registry")
        return True

    def digest(self, reference: str) -> str | None:
        """The digest of the manifest that a tag or digest names; None where it names none, or the registry does not say."""
        try:
            answer = self.head(f"manifests/{quote(reference, safe=':')}", {"Accept": _ACCEPT})
        except HttpError:
            return None
        said = answer.headers.get("Docker-Content-Digest")
        try:
            return said or self.manifest(reference).digest
        except AikitError:
            return None

    def put_manifest(self, reference: str, media_type: str, data: bytes) -> str:
        """Store a manifest under a tag or its digest, which is given back; it may be there already.

        Tags may be such as never change (ECR, Harbor, Quay, Artifactory, Google), and a second PUT be refused in any way:
        so what is there is asked first, and not sent again.
        """
        digest = digest_of(data)
        path = f"manifests/{quote(reference, safe=':')}"

        def put(login: Mapping[str, str]) -> Answer:
            headers = {"Content-Type": media_type, **login}
            return self.client.send("PUT", self.url(path), [data], len(data), headers=headers)

        if (there := self.digest(reference)) == digest:
            return digest
        backoff = self.client.backoff()
        while True:
            try:
                self.agrees(self.asked(put).headers, digest)
                return digest
            except HttpError as refused:
                if refused.again:
                    self.wait(backoff, refused, path)
                elif (now := self.digest(reference)) == digest:
                    return digest  # somebody else brought it at the same time
                elif there and now == there and refused.status not in (401, 404, 413, 429):
                    said = _said(refused.body)
                    raise error(
                        f"{self}:{reference} is {redact.shown(now)} already, and the registry does not let it become {digest}:"
                        f" push under another tag, or remove that one{f' ({said})' if said else ''}",
                        code="registry",
                    ) from None
                else:
                    raise self.refused(refused, path) from None

    def head(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """What the registry says about something, also where it knows no HEAD. Raises HttpError and AikitError."""

        def head(login: Mapping[str, str]) -> Answer:
            return self.client.head(self.url(path), headers={**(headers or {}), **login})

        def get(login: Mapping[str, str]) -> Answer:
            with self.client.stream(self.url(path), headers={**(headers or {}), **login}) as answer:
                return Answer(answer.url, answer.status, answer.headers, b"")

        try:
            return self.asked(head)
        except HttpError as refused:
            if refused.status not in (400, 405, 501):
                raise
            return self.asked(get)

    def wait(self, backoff: Backoff, problem: HttpError, path: str) -> None:
        """Wait before the next attempt; raises AikitError where there is no sense in one."""
        try:
            backoff.failed(problem)
        except HttpError:
            raise self.refused(problem, path) from None

    def agrees(self, headers: Mapping[str, str], digest: str) -> None:
        """Raises AikitError where the registry took what it got for something else."""
        said = headers.get("Docker-Content-Digest")
        if said and said.startswith("sha256:") and said != digest:
            raise error(
                f"{self} says {redact.shown(said)} of what has the digest {digest}: do not trust it", code="registry"
            )

    def login(self) -> None:
        """Ask for what the repository wants to know, before a request that cannot be asked twice."""
        try:
            self.client.get(f"{self._base}/v2/", headers=self.headers())
        except HttpError as refused:
            if refused.status == 401 and self.authorize(refused):
                return
            if refused.status not in (401, 404):
                raise self.refused(refused, "") from None

    def authorize(self, refused: HttpError) -> bool:
        """Do what a 401 asks for; False where there is nothing more to do. Source: the distribution project's token spec."""
        said = list(challenges.parse(refused.headers.get("WWW-Authenticate", "")))
        login = credentials.find(self.registry, self.name)
        before = self._authorization
        problem: AikitError | None = None
        for each in sorted(said, key=lambda each: each.scheme != "bearer"):  # a token rather than the password
            try:
                if each.scheme == "bearer" and "realm" in each.parameters:
                    self._authorization = f"Bearer {self._token(each.parameters, login)}"
                elif each.scheme == "basic" and login:
                    self._authorization = login.basic
                else:
                    continue
            except AikitError as failed:
                problem = problem or failed
                continue
            return self._authorization != before
        if problem:
            raise problem
        return False

    def _token(self, said: Mapping[str, str], login: credentials.Login | None) -> str:
        realm = self.address(self._base, said["realm"], "its login")
        to, own = urlsplit(realm), urlsplit(self._base)
        if login and to.scheme == "http" and to.netloc != own.netloc and not is_loopback(to.hostname or ""):
            raise error(
                f"{self} sends its login to {redact.blank(realm)}, which is not encrypted and another host",
                code="registry",
            )
        scopes = self._scopes
        if self._reads and "scope" in said:
            scopes = [said["scope"]]
        query = {"service": said["service"]} if "service" in said else {}
        if login and login.identity_token:
            form = urlencode(
                {
                    **query,
                    "scope": " ".join(scopes),
                    "grant_type": "refresh_token",
                    "refresh_token": login.identity_token,
                    "client_id": "aikit-nix",
                }
            )
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = self.client.post(realm, form.encode(), headers=headers)
        else:
            asked = urlencode({**query, "scope": scopes}, doseq=True, quote_via=quote)
            address = f"{realm}{'&' if '?' in realm else '?'}{asked}"
            try:
                answer = self.client.get(address, headers={"Authorization": login.basic} if login else {})
            except HttpError as refused:
                if refused.status is not None and len(self._scopes) > 1:
                    del self._scopes[1:]  # what blobs may be mounted from is not open, or not there: do without
                    return self._token(said, login)
                if refused.status in (401, 403):
                    raise error(
                        f"{self.registry} does not take the login for {self.name}: log in again (`docker login {self.registry}`)",
                        code="registry",
                    ) from None
                raise
        content = answer.json()
        token = content.get("token") or content.get("access_token") if isinstance(content, dict) else None
        if not isinstance(token, str) or not token:
            raise error(f"{self.registry} gave no token for {self.name}", code="registry")
        redact.hide(token)
        return token

    def refused(self, problem: HttpError, path: str) -> AikitError:
        """What a refusal means, and what to do about it."""
        if problem.trouble is not Trouble.STATUS:
            return error(f"{self}: {problem.message}", code="registry")
        said = _said(problem.body)
        match problem.status:
            case 413 | 507:
                hint = "takes nothing as large, or has no room: look at its limits and at those of the proxy before it"
            case status if _LIMIT_SAID.search(said):
                hint = f"refuses this for a limit or rule of its own (status {status})"
            case 401 | 403:
                hint = f"is not open to you: `docker login {self.registry}` or `podman login {self.registry}`"
            case 404:
                what = path.partition("/")[2]
                hint = f"has no {what}: check the name and the tag" if what else "is not there: check the name"
                if path.startswith("blobs/uploads"):
                    hint = "is not there, and does not begin with a push: create it in the registry first"
            case 429:
                hint = "takes no more requests for now: wait some minutes, or log in"
            case status if status is None or status >= 500 or problem.again:
                hint = f"answered {status}: try again later"
            case status:
                hint = f"does not take this (status {status})"
        return error(f"{self} {hint}{f' ({said})' if said else ''}", code="registry")


def _place(address: SplitResult) -> tuple[str | None, int | None]:
    """Whom an address is of. Raises ValueError."""
    return address.hostname, address.port or {"http": 80, "https": 443}.get(address.scheme)


def _said(body: bytes) -> str:
    """The message in a registry's error."""
    try:
        first = json.loads(body)["errors"][0]
        detail = first.get("detail")
        parts = [first.get("message") or first.get("code"), detail if isinstance(detail, str) else None]
        return redact.shown(": ".join(dict.fromkeys(str(part) for part in parts if part)))[:300]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
