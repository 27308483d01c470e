"""The connections below the HTTP client: an end for what never ends."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from aikit_nix import __version__
from aikit_nix.base.errors import AikitError, Diagnostic, RefusedError, Severity
from aikit_nix.base.redact import blank, shown
from aikit_nix.http import certificates
from aikit_nix.http.proxies import proxy_for

if TYPE_CHECKING:
    import httpx2


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
class Timeouts:
    """How long to wait for what, in seconds; and how often to try."""

    connect: float = 15
    read: float = 30  # without a byte
    answer: float = 60  # for a whole small answer, or until a large one begins
    attempts: int = 5
    first_wait: float = 0.5  # doubled each time
    longest_wait: float = 60  # also of a server's Retry-After


class Connection:
    """One thread's connections, by the origin that they go to; and their sockets."""

    def __init__(self, timeouts: Timeouts, unverified: Set[tuple[str, int]] = frozenset()) -> None:
        """`unverified` are hosts and ports whose certificates are not asked for."""
        self._timeouts = timeouts
        self._unverified = unverified
        self._clients: dict[tuple[str, str, int], httpx2.Client] = {}
        self._sockets: list[socket.socket] = []

    def send(
        self,
        method: str,
        address: httpx2.URL,
        headers: Mapping[str, str],
        content: bytes | Iterator[bytes] | None,
        read: float | None = None,
    ) -> httpx2.Response:
        """The answer, whose body is not read yet; `read` are seconds without a byte. Raises what `troubles` knows."""
        import httpx2

        origin = (address.scheme, address.host, port_of(address))
        client = self._clients.get(origin) or self._clients.setdefault(origin, self._client(*origin))
        request = client.build_request(
            method,
            address,
            headers=headers,
            content=content,
            timeout=httpx2.Timeout(read or self._timeouts.read, connect=self._timeouts.connect),
            extensions={"trace": self.trace},
        )
        return client.send(request, stream=True)

    def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            client.close()

    def _client(self, scheme: str, host: str, port: int) -> httpx2.Client:
        import httpx2

        try:
            if scheme == "http":
                trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # nobody: nothing is asked for
            else:
                trusted = certificates.context(host, port, verified=(host, port) not in self._unverified)
        except RefusedError as refused:
            raise HttpError(Trouble.REFUSED, str(refused)) from None
        proxy = proxy_for(scheme, host, port)
        try:
            client = httpx2.Client(
                verify=trusted,
                proxy=httpx2.Proxy(proxy, ssl_context=_proxy_tls(proxy)) if proxy else None,
                headers={"User-Agent": f"aikit-nix/{__version__}", "Accept": "*/*"},
                trust_env=False,  # it has rules of its own for proxies and certificates, and logs in from ~/.netrc
            )
        except (ValueError, httpx2.InvalidURL) as problem:
            raise HttpError(
                Trouble.REFUSED,
                f"the proxy {shown(str(proxy))} cannot be used, which HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names for {host}: "
                f"{shown(str(problem))}",
            ) from None
        client.cookies.jar.set_policy(_no_cookies())
        return client

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


class Deadline:
    """Shuts the connections when the time is over: a server that sends a byte now and then never times out."""

    def __init__(self, connection: Connection, seconds: float) -> None:
        self._connection = connection
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self.expired = False
        self.rests = False  # while nobody waits for the server
        self.until(seconds)

    def until(self, seconds: float) -> None:
        """From now on."""
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds

    def __enter__(self) -> Deadline:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def _wait(self) -> None:
        while (left := self._deadline - time.monotonic()) > 0 or self.rests:
            if self._done.wait(left if left > 0 else 1):
                return
        self.expired = True
        self._connection.shut()

    def __str__(self) -> str:
        return f"{self._seconds:g} s"


@contextmanager
def troubles(address: httpx2.URL, deadline: Deadline, timeouts: Timeouts) -> Iterator[None]:
    """httpx2's errors, and those of the libraries below it, as ours."""
    import httpx2

    where = blank(str(address))
    try:
        yield
    except HttpError:
        raise
    except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, OSError, ValueError) as problem:
        if deadline.expired:
            raise HttpError(Trouble.SLOW, f"{where} is too slow: gave up after {deadline}", again=True) from None
        reason = shown(str(problem) or type(problem).__name__)
        match problem:
            case httpx2.ConnectTimeout():
                message = f"{where} cannot be reached{_proxy(address)}: no connection after {timeouts.connect:g} s"
                raise HttpError(Trouble.UNREACHABLE, message, again=True) from None
            case httpx2.ConnectError() | httpx2.ProxyError():
                message = f"{where} cannot be reached{_proxy(address)}: {reason}{_tls_hint(reason)}"
                raise HttpError(Trouble.UNREACHABLE, message, again="certificate" not in reason.lower()) from None
            case httpx2.TimeoutException():
                message = f"{where} said nothing for {timeouts.read:g} s"
                raise HttpError(Trouble.INTERRUPTED, message, again=True) from None
            case httpx2.TransportError() | OSError():
                raise HttpError(Trouble.INTERRUPTED, f"{where} broke off: {reason}", again=True) from None
            case _:
                raise HttpError(Trouble.REFUSED, f"{where} cannot be asked for: {reason}") from None


def speaks_tls(host: str, port: int, timeouts: Timeouts) -> bool:
    """Whether a server shakes hands, whatever its certificate is."""
    try:
        with socket.create_connection((host, port), timeouts.connect) as plain:
            certificates.context(host, port, verified=False).wrap_socket(plain, server_hostname=host).close()
    except (OSError, ValueError):
        return False
    return True


def port_of(address: httpx2.URL) -> int:
    """The port, also where it goes without saying."""
    return address.port or (443 if address.scheme == "https" else 80)


def _proxy_tls(proxy: str) -> ssl.SSLContext | None:
    """For a proxy that itself is spoken to over TLS."""
    return certificates.context("", 0) if proxy.startswith("https://") else None


def _tls_hint(reason: str) -> str:
    lowered = reason.lower()
    if "certificate" not in lowered:
        return ""
    if "expired" in lowered or "not yet valid" in lowered:
        return " (is this machine's clock right?)"
    return " (SSL_CERT_FILE, or for one host /etc/containers/certs.d/HOST:PORT, has the certificates to trust)"


def _proxy(address: httpx2.URL) -> str:
    """` through the proxy …`, where there is one for an address."""
    proxy = proxy_for(address.scheme, address.host, port_of(address))
    return f" through the proxy {blank(proxy)}" if proxy else ""


def _no_cookies() -> Any:
    from http.cookiejar import DefaultCookiePolicy

    return DefaultCookiePolicy(allowed_domains=[])
