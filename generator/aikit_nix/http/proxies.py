"""Which proxy an address is asked through: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, as curl and Go's programs read them.

Nix downloads with curl; docker, podman and skopeo are Go. Sources: curl(1), "ENVIRONMENT"; golang.org/x/net/http/httpproxy.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_RULE = re.compile(
    r"(?:\[(?P<six>[^\]]*)\]|(?P<name>[^:/]*)|(?P<bare>[0-9a-f:.]*:[0-9a-f:.]*))(?P<bits>/\d+)?(?::(?P<port>\d+))?"
)


def proxy_for(scheme: str, host: str, port: int) -> str | None:
    """The address of the proxy; None where the host is asked straight, as this machine always is."""
    from urllib.request import getproxies_environment

    said = getproxies_environment()
    named = said.get(scheme) or said.get("all")
    if not named or is_loopback(host) or bypassed(host, port, said.get("no", "")):
        return None
    # what desktops call socks is SOCKS 5
    return re.sub(r"^socks://", "socks5h://", named if "://" in named else f"http://{named}")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or address."""
    name = host.lower().strip("[]").removesuffix(".")
    address = _address(name)
    return address.is_loopback if address else name == "localhost" or name.endswith(".localhost")


def bypassed(host: str, port: int, rules: str) -> bool:
    """Whether NO_PROXY's rules cover a host: names with all that is below them, addresses, networks, `*`; a port with any.

    What is no rule covers nothing.
    """
    name = host.lower().strip("[]").removesuffix(".")
    address = _address(name)
    for text in re.split(r"[\s,]+", rules.lower()):
        if text == "*":
            return True
        rule = _RULE.fullmatch(text)
        if not rule or (rule["port"] and int(rule["port"]) != port):
            continue
        said = rule["six"] or rule["bare"] or rule["name"] or ""
        domain = said.removeprefix("*").strip(".")
        if rule["bits"]:
            covered = address is not None and _in_network(address, said + rule["bits"])
        elif address:
            covered = address == _address(said)
        else:
            covered = bool(domain) and f".{name}".endswith(f".{domain}")
        if covered:
            return True
    return False


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _in_network(address: IPv4Address | IPv6Address, text: str) -> bool:
    try:
        return address in ip_network(text, strict=False)
    except ValueError:
        return False
