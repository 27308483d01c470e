"""Runs the property tests with ever new inputs: `fuzz.py [SECONDS]`, ten minutes without an argument.

They are about the language, and about names, what is printed, GGUF headers, locks and answers of servers. Between them,
mutations of the spec page's example go through everything that the commands do with a file.

Prints how many inputs each property saw; ends with 1 at the first one that does not hold, which hypothesis shows, or that
takes more CPU time than any input may.
"""

from __future__ import annotations

import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
_EXAMPLES = 200  # of a property, before the next one has its turn
_MUTATING = 15  # seconds, likewise
_LONGEST = 10  # seconds of CPU time for one input; most take a thousandth


def main(seconds: float) -> None:
    """Take turns until the time is over, or Ctrl-C."""
    settings.register_profile(
        "fuzz",
        max_examples=_EXAMPLES,
        database=None,
        deadline=None,  # the time of an input has a limit here
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("fuzz")
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "generator")]
    import test_input_properties
    import test_language_properties
    import test_reader_properties

    signal.signal(signal.SIGVTALRM, too_long)
    seen: Counter[str] = Counter()
    modules = (test_language_properties, test_input_properties, test_reader_properties)
    properties = [value for module in modules for name, value in vars(module).items() if name.startswith("test_")]
    for run in properties:
        run.hypothesis.inner_test = counted(run.hypothesis.inner_test, seen)
    begin = time.monotonic()
    end = begin + seconds
    with suppress(KeyboardInterrupt):
        while time.monotonic() < end:
            for run in properties:
                if time.monotonic() < end:
                    run()
            mutate(test_language_properties.check_everything, min(end, time.monotonic() + _MUTATING), seen)
    for name, count in seen.items():
        print(f"{count:>9,} {name}")
    print(f"{seen.total():>9,} inputs in {time.monotonic() - begin:.0f} s; every property held")


def mutate(check: Callable[[bytes], None], end: float, seen: Counter[str]) -> None:
    """Check the example with bytes of it cut, doubled, moved and replaced, until `end` (of the monotonic clock)."""
    example = (ROOT / "tests/fixtures/spec-example.yaml").read_bytes()
    pieces = [
        b'"',
        b"\\",
        b"\\n",
        b"'",
        b": ",
        b"- ",
        b"\n",
        b"\t",
        b"{{",
        b"}}",
        b"|",
        b"&a ",
        b"*a",
        b"<<: ",
        b"\xff",
        b"\0",
        b"#",
        b"../",
        b"./",
        b".drv",
        b"\x1b]0;x\x07",
        b"\\x1b]52;c;eA==",
        "\u202e\x85".encode(),
        b"{{/*",
        b"sha256: ",
    ]
    while time.monotonic() < end:
        chance = random.Random(seen["mutations"] ^ int(time.time_ns()))
        data = bytearray(example)
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(data) + 1)
            until = min(len(data), at + chance.choice((0, 0, 1, 1, 4, 40)))
            moved = bytes(data[chance.randrange(len(data) + 1) :][: chance.choice((1, 8, 80))])
            data[at:until] = chance.choice(
                (b"", moved, chance.choice(pieces), chance.choice(pieces) * chance.randint(1, 9))
            )
        seen["mutations"] += 1
        try:
            with timed():
                check(bytes(data))
        except Exception:
            traceback.print_exc()
            sys.exit(f"this input does it: {bytes(data)!r}")


def counted(inner: Callable[..., Any], seen: Counter[str]) -> Callable[..., Any]:
    """The same function, which counts how often it ran."""

    @wraps(inner)
    def run(*args: Any, **kwargs: Any) -> Any:
        seen[inner.__name__] += 1
        with timed():
            return inner(*args, **kwargs)

    return run


@contextmanager
def timed() -> Iterator[None]:
    """Let no input take longer than _LONGEST."""
    signal.setitimer(signal.ITIMER_VIRTUAL, _LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def too_long(*_: object) -> None:
    """What the timer calls."""
    raise AssertionError(f"this input takes more than {_LONGEST} s of CPU time")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 600)
