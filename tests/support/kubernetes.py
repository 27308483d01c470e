"""Whether manifests are what Kubernetes' published API says, strictly, by the types that lightkube has of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from lightkube.models import apps_v1, core_v1, networking_v1

KINDS = {
    "ConfigMap": core_v1.ConfigMap,
    "Deployment": apps_v1.Deployment,
    "NetworkPolicy": networking_v1.NetworkPolicy,
    "Pod": core_v1.Pod,
    "Service": core_v1.Service,
}


def problems(manifest: Mapping[str, Any]) -> list[str]:
    """Where it has a field that there is not, lacks one that must be there, or has a value of another type."""
    return list(_problems(KINDS[manifest["kind"]], manifest, manifest["kind"]))


def _problems(kind: Any, value: Any, at: str) -> Iterator[str]:
    choices = [each for each in get_args(kind) if each is not NoneType] if get_origin(kind) is not list else []
    if choices and get_origin(kind) is not dict:
        if not any(not list(_problems(each, value, at)) for each in choices):
            yield from _problems(choices[0], value, at)
    elif get_origin(kind) is list:
        if not isinstance(value, list):
            yield f"{at} is no list"
            return
        for number, item in enumerate(value):
            yield from _problems(get_args(kind)[0], item, f"{at}[{number}]")
    elif kind in (str, int, bool, float):
        if type(value) is not kind:
            yield f"{at} is {value!r}, no {kind.__name__}"
    elif not isinstance(value, dict):
        yield f"{at} is {value!r}, no map"
    elif kind is not dict and get_origin(kind) is not dict and (hints := get_type_hints(kind)):
        fields = {name.rstrip("_"): hint for name, hint in hints.items()}  # `from` is a word of Python's
        yield from (f"{at}.{key} is no field" for key in value.keys() - fields.keys())
        yield from (
            f"{at}.{key} is missing" for key in fields if key not in value and NoneType not in get_args(fields[key])
        )
        for key in value.keys() & fields.keys():
            yield from _problems(fields[key], value[key], f"{at}.{key}")
