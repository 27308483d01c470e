"""The connections below the HTTP client: proxies and certificates as users set them, an end for what never ends."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from aikit_nix import __version__
from aikit_nix.base.errors import AikitError, Diagnostic, Severity
from aikit_nix.base.redact import blank, shown

if TYPE_CHECKING:
    import httpx

_CA_FILES = ("SSL_CERT_FILE", "NIX_SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class Trouble(Enum):
    """What went wrong with a request."""

    STATUS = "status"  # the server answered, with a status of 400 or more
    UNREACHABLE = "unreachable"  # no connection, or no answer on it
    INTERRUPTED = "interrupted"  # the answer broke off
    SLOW = "slow"  # the answer did not end in time, though bytes came
    TOO_LONG = "too-long"  # the answer is longer than it may be
    REFUSED = "refused"  # by us: no http(s), a redirect that may not be followed, an answer that makes no sense


class HttpError(AikitError):
    """A request that failed for good. `message` is one line that says what and where, without secrets.

    Callers that know for which model it was say so: `raise error(f"{model}: {problem.message}", at, problem.code)`.
    """

    def __init__(
        self,
        trouble: Trouble,
        message: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        again: bool = False,
    ) -> None:
        super().__init__(Diagnostic(Severity.ERROR, f"http-{trouble.value}", message))
        self.trouble = trouble
        self.code = f"http-{trouble.value}"
        self.message = message
        self.status = status
        self.headers: Mapping[str, str] = headers or {}  # names in any case
        self.body = body
        self.again = again  # whether it may be different next time


@dataclass(frozen=True)
class Patience:
    """How long to wait for what, in seconds; and how often to try."""

    connect: float = 15
    read: float = 30  # without a byte
    answer: float = 60  # for a whole small answer, or until a large one begins
    attempts: int = 5
    first_wait: float = 0.5  # doubled each time
    longest_wait: float = 60  # also of a server's Retry-After


class Line:
    """One thread's connections: httpx's client, and the sockets that it opened."""

    def __init__(self, patience: Patience, *, direct: bool = False) -> None:
        import httpx

        try:
            self.client = httpx.Client(
                verify=_tls(),
                timeout=httpx.Timeout(patience.read, connect=patience.connect),
                headers={"User-Agent": f"aikit-nix/{__version__}", "Accept": "*/*"},
                follow_redirects=False,
                trust_env=not direct,
            )
        except (ImportError, ValueError, httpx.InvalidURL) as problem:
            raise HttpError(
                Trouble.REFUSED,
                f"the proxy that HTTP_PROXY, HTTPS_PROXY, ALL_PROXY or NO_PROXY names cannot be used: {shown(str(problem))}",
            ) from None
        self.client.cookies.jar.set_policy(_no_cookies())
        self._sockets: list[socket.socket] = []

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """httpcore's documented hook: it is told of each socket that is opened."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._sockets = [known for known in self._sockets if known.fileno() >= 0]
            self._sockets.append(info["return_value"].get_extra_info("socket"))

    def shut(self) -> None:
        """End every read and write on these connections at once, from another thread."""
        for known in list(self._sockets):
            with suppress(OSError):  # closed already
                # not ssl's own shutdown, which changes what the reading thread uses
                socket.socket.shutdown(known, socket.SHUT_RDWR)


class Watch:
    """Shuts the connections when the time is over: a server that sends a byte now and then never times out."""

    def __init__(self, line: Line, seconds: float) -> None:
        self._line = line
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self.expired = False
        self.until(seconds)

    def until(self, seconds: float) -> None:
        """From now on."""
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def _wait(self) -> None:
        while (left := self._deadline - time.monotonic()) > 0:
            if self._done.wait(left):
                return
        self.expired = True
        self._line.shut()

    def __str__(self) -> str:
        return f"{self._seconds:g} s"


@contextmanager
def troubles(address: httpx.URL, watch: Watch, patience: Patience) -> Iterator[None]:
    """httpx's errors, and those of the libraries below it, as ours."""
    import httpx

    where = blank(str(address))
    try:
        yield
    except HttpError:
        raise
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError, ValueError) as problem:
        if watch.expired:
            raise HttpError(Trouble.SLOW, f"{where} is too slow: gave up after {watch}", again=True) from None
        reason = shown(str(problem) or type(problem).__name__)
        match problem:
            case httpx.ConnectTimeout():
                message = f"{where} cannot be reached{_proxy(address)}: no connection after {patience.connect:g} s"
                raise HttpError(Trouble.UNREACHABLE, message, again=True) from None
            case httpx.ConnectError() | httpx.ProxyError():
                message = f"{where} cannot be reached{_proxy(address)}: {reason}{_tls_hint(reason)}"
                raise HttpError(Trouble.UNREACHABLE, message, again="certificate" not in reason.lower()) from None
            case httpx.TimeoutException():
                message = f"{where} said nothing for {patience.read:g} s"
                raise HttpError(Trouble.INTERRUPTED, message, again=True) from None
            case httpx.TransportError() | OSError():
                raise HttpError(Trouble.INTERRUPTED, f"{where} broke off: {reason}", again=True) from None
            case _:
                raise HttpError(Trouble.REFUSED, f"{where} cannot be asked for: {reason}") from None


def _tls() -> ssl.SSLContext:
    """Whom to trust: what the user's variables name, else the system's certificates, else certifi's."""
    for variable in _CA_FILES:
        if named := os.environ.get(variable):
            try:
                if os.path.isdir(named):  # noqa: PTH112
                    return ssl.create_default_context(capath=named)
                return ssl.create_default_context(cafile=named)
            except OSError as problem:  # SSLError is one
                raise HttpError(
                    Trouble.REFUSED, f"{variable} names no certificates: {shown(named)}: {shown(str(problem))}"
                ) from None
    if named := os.environ.get("SSL_CERT_DIR"):
        return ssl.create_default_context(capath=named)
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not context.cert_store_stats()["x509_ca"] and not paths.capath:
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def _tls_hint(reason: str) -> str:
    lowered = reason.lower()
    if "certificate" not in lowered:
        return ""
    if "expired" in lowered or "not yet valid" in lowered:
        return " (is this machine's clock right?)"
    return " (SSL_CERT_FILE names the certificates to trust)"


def _proxy(address: httpx.URL) -> str:
    """` through the proxy …`, where there is one for an address."""
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    return f" through the proxy {blank(proxy)}" if proxy and not proxy_bypass(address.host) else ""


def _no_cookies() -> Any:
    from http.cookiejar import DefaultCookiePolicy

    return DefaultCookiePolicy(allowed_domains=[])
