"""What we ship of others' work is what its manifest says, byte for byte."""

import hashlib
import json

from mcs.config import ROOT

VENDOR = ROOT / "static" / "vendor"
UNLISTED = {"manifest.json", "LICENSES.txt"}


def test_each_vendored_file_is_in_the_manifest_with_its_hash() -> None:
    entries = json.loads((VENDOR / "manifest.json").read_text())
    digests = {entry["file"]: entry["sha256"] for entry in entries}
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.iterdir()
        if path.name not in UNLISTED
    }
    assert found == digests
    for entry in entries:
        assert entry["name"] and entry["version"] and entry["licence"] and entry["source"]


def test_the_licences_are_kept_beside_the_files() -> None:
    text = (VENDOR / "LICENSES.txt").read_text()
    for entry in json.loads((VENDOR / "manifest.json").read_text()):
        assert f"{entry['name']} {entry['version']}" in text
