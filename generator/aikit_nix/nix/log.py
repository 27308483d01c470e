"""Nix's own log (`--log-format internal-json`), for people: what is built and downloaded, and what went wrong.

Source of the numbers: Nix's src/libutil/logging.hh, the same from 2.4 on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_PREFIX = "@nix "
_COPY, _DOWNLOAD, _BUILD = 100, 101, 105  # kinds of activities
_LOG_LINE = 101  # a kind of result
_ERROR = 0  # a level
_KEPT = 12  # lines of a build that failed
_LONG = 10.0  # seconds: a build of which the end is worth a line
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_STORE_NAME = re.compile(r"/nix/store/[0-9a-z]{32}-([^' ]+?)(\.drv)?'?$")


@dataclass
class Activity:
    """Something that Nix does at the moment; `lines` are the last ones that a build wrote."""

    kind: int
    name: str
    started: float
    lines: list[str] = field(default_factory=list)


class Log:
    """What Nix is doing, by the lines of its log. All that they say may come from a build: who prints it escapes it."""

    def __init__(self) -> None:
        self.running: dict[int, Activity] = {}
        self.ended = 0  # builds and downloads
        self.errors: list[str] = []
        self._last: list[str] = []

    def take(self, line: str, now: float) -> Iterator[str]:
        """Understand a line; what is worth one to people, where there is no terminal to show it live."""
        if not line.startswith(_PREFIX):
            self.errors.append(line)
            return
        try:
            event = json.loads(line.removeprefix(_PREFIX))
            match event["action"]:
                case "start" if event["type"] in (_COPY, _DOWNLOAD, _BUILD):
                    activity = Activity(event["type"], _name(event), now)
                    self.running[event["id"]] = activity
                    if activity.kind == _BUILD:
                        yield f"building {activity.name}"
                case "stop" if ended := self.running.pop(event["id"], None):
                    self.ended += 1
                    self._last = ended.lines or self._last
                    if ended.kind == _BUILD and now - ended.started > _LONG:
                        yield f"{ended.name}: done in {now - ended.started:.0f} s"
                case "result" if event["type"] == _LOG_LINE and (build := self.running.get(event["id"])):
                    build.lines = [*build.lines, _plain(event["fields"][0])][-_KEPT:]
                case "msg" if event["level"] == _ERROR:
                    self.errors.append(_plain(event.get("raw_msg") or event["msg"]))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            return  # a newer Nix may say other things

    def status(self) -> str:
        """One line that says what is going on."""
        running = list(self.running.values())  # at once: the terminal's thread asks while ours takes lines
        names = [activity.name for activity in running if activity.kind == _BUILD]
        names = names or [activity.name for activity in running]
        what = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        return f"{self.ended} done" + (f"; {what}" if what else "")

    def wrong(self) -> str:
        """What went wrong, with the last lines of the build that failed where Nix does not repeat them."""
        text = "\n".join(self.errors[-3:])
        return text if "log lines:" in text or not self._last else "\n".join([*self._last, text])


def _name(event: dict[str, Any]) -> str:
    fields = event.get("fields") or [event.get("text", "")]
    said = str(fields[0]) or str(event.get("text", ""))
    found = _STORE_NAME.search(said)
    return found[1] if found else _plain(said)


def _plain(text: object) -> str:
    return _COLOUR.sub("", str(text))
