"""What a vulnerability scanner makes of an image: it must know Debian's packages and their release.

Grype reads a database that is made here, of one vulnerability. Source of its tables: grype/db/v6/models.go of Grype
0.110; it makes them itself where a database lacks them.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from support import flakes

GRYPE = shutil.which("grype")
CVE = "CVE-2026-00001"
METADATA = "CREATE TABLE db_metadata (build_timestamp datetime, model integer, revision integer, addition integer)"

pytestmark = pytest.mark.skipif(
    not GRYPE, reason="grype is not installed (`go install github.com/anchore/grype/cmd/grype`)"
)


@pytest.fixture(scope="module")
def layout(tiny_flake: Path) -> Path:
    return flakes.build(tiny_flake, "oci")


class Grype:
    """Grype, offline, with a database of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "GRYPE_DB_CACHE_DIR": str(folder / "db"),
            "GRYPE_DB_AUTO_UPDATE": "false",
            "GRYPE_DB_VALIDATE_AGE": "false",
            "GRYPE_CHECK_FOR_APP_UPDATE": "false",
        }

    def run(self, *arguments: str | Path) -> str:
        argv = [str(GRYPE), *map(str, arguments)]
        done = subprocess.run(argv, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def know(self, tables: Mapping[str, list[dict[str, Any]]]) -> None:
        """A database of these rows, in the tables that Grype makes for one that only says what it is."""
        file = self.folder / "made.db"
        connection = sqlite3.connect(file)
        with connection:
            connection.execute(METADATA)
            connection.execute("INSERT INTO db_metadata VALUES (?, ?, ?, ?)", ("2026-01-01 00:00:00+00:00", 6, 1, 4))
        connection.close()
        self.run("db", "import", file)
        [made] = (self.folder / "db").rglob("vulnerability.db")
        shutil.copy(made, file)
        connection = sqlite3.connect(file)
        with connection:
            for table, rows in tables.items():
                for row in rows:
                    names, marks = ", ".join(row), ", ".join("?" * len(row))
                    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))
        connection.close()
        self.run("db", "import", file)

    def vulnerabilities(self, image: Path) -> list[tuple[str, str]]:
        """(CVE, package) of each match."""
        found = json.loads(self.run(f"oci-dir:{image.resolve()}", "-o", "json"))
        return [(match["vulnerability"]["id"], match["artifact"]["name"]) for match in found["matches"]]


def planted(constraint: str) -> dict[str, list[dict[str, Any]]]:
    """One vulnerability of the source package openssl in Debian unstable, as Grype's own database names that."""
    blobs = [
        {"id": CVE.lower(), "severities": [{"scheme": "CHMLN", "value": "high", "rank": 1}]},
        {
            "cves": [CVE],
            "ranges": [{"version": {"type": "dpkg", "constraint": constraint}, "fix": {"state": "not-fixed"}}],
        },
    ]
    return {
        "providers": [
            {"id": "debian", "version": "1", "processor": "test", "date_captured": "2026-01-01 00:00:00+00:00"}
        ],
        "blobs": [{"id": number, "value": json.dumps(blob)} for number, blob in enumerate(blobs, 1)],
        "operating_systems": [
            {"id": 1, "name": "debian", "release_id": "debian", "label_version": "unstable", "codename": "sid"}
        ],
        # From KnownOperatingSystemSpecifierOverrides (grype/db/v6/data.go).
        "operating_system_specifier_overrides": [
            {"alias": "debian", "codename": "forky", "rolling": True, "replacement_label_version": "unstable"}
        ],
        "packages": [{"id": 1, "ecosystem": "deb", "name": "openssl"}],
        "vulnerability_handles": [{"id": 1, "name": CVE, "status": "active", "provider_id": "debian", "blob_id": 1}],
        "affected_package_handles": [
            {"id": 1, "vulnerability_id": 1, "operating_system_id": 1, "package_id": 1, "blob_id": 2}
        ],
    }


def test_grype_finds_a_vulnerability_of_a_package_in_the_image(layout: Path, tmp_path: Path) -> None:
    grype = Grype(tmp_path)
    grype.know(planted("< 99"))
    assert (CVE, "libssl3t64") in grype.vulnerabilities(layout)


def test_grype_finds_none_where_the_package_is_newer(layout: Path, tmp_path: Path) -> None:
    grype = Grype(tmp_path)
    grype.know(planted("< 1"))
    assert grype.vulnerabilities(layout) == []
