"""What the docs show: commands that there are, manifests that are whole, and the engines' differences as recorded."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from aikit_nix.cli import cli
from support import answers, kubernetes

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = ["proof.md", "kubernetes.md"]


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_are_commands(page: str) -> None:
    lines = re.findall(r"^    aikit-nix (.*)$", (DOCS / page).read_text(), re.MULTILINE)
    assert lines
    for line in lines:
        name, *arguments = shlex.split(line, comments=True)
        assert isinstance(cli, click.Group)
        command = cli.get_command(click.Context(cli), name)
        assert command, name
        command.make_context(name, list(arguments))  # raises UsageError


def test_the_manifests_are_yaml_of_their_kinds() -> None:
    found = [
        yaml.safe_load(text)
        for text in re.findall(r"```yaml\n(.*?)```", (DOCS / "kubernetes.md").read_text(), re.DOTALL)
    ]
    assert [each["kind"] for each in found] == ["PodMonitor", "ScaledObject", "Pod", "InferenceService", "Workspace"]
    pod = found[2]
    assert kubernetes.problems(pod) == []
    (container,) = pod["spec"]["containers"]
    # What the Pod Security Standard `restricted` asks for
    assert pod["spec"]["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_the_engines_differ_as_it_was_recorded() -> None:
    page = answers.PAGE.read_text()
    assert answers.page(json.loads(answers.RECORD.read_text()), page) == page
    assert page.count("\n| ") > 10
