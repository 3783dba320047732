"""A store that is read while others write it: what is torn or strange is left out."""

from __future__ import annotations

import json
from pathlib import Path

from trainrun_api.store_files import newest_committed, read_claims, read_metrics, read_object, read_objects


def test_what_is_no_whole_object_is_left_out(tmp_path: Path) -> None:
    """Missing, torn, of another kind, not text."""
    assert read_object(tmp_path / "none.json") == {}
    assert list(read_objects(tmp_path / "none.jsonl")) == []
    for content in (b'{"a": 1', b"[1]", b"\xff{", b""):
        (tmp_path / "x.json").write_bytes(content)
        assert read_object(tmp_path / "x.json") == {}
    (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\n\xff\n[2]\n{"b": 2}\n{"c": ')
    assert list(read_objects(tmp_path / "x.jsonl")) == [{"a": 1}, {"b": 2}]


def test_a_store_is_its_claims_metrics_and_checkpoints(tmp_path: Path) -> None:
    """What an older claim committed beyond the newer one's parent does not count."""
    for folder in ("claims", "metrics", "step-4-c1", "step-8-c1", "step-6-c2"):
        (tmp_path / folder).mkdir()
    claims = [{"k": 1, "parent": None}, {"k": 2, "parent": {"step": 4, "claim": 1}}]
    for claim in claims:
        (tmp_path / "claims" / f"{claim['k']}.json").write_text(json.dumps(claim))
    (tmp_path / "metrics" / "c2.jsonl").write_text('{"step": 5}\n{"step"')
    for name in ("step-4-c1", "step-8-c1"):
        (tmp_path / name / "manifest.json").write_text("{}")
    assert sorted(read_claims(tmp_path), key=lambda claim: int(claim["k"])) == claims
    assert read_metrics(tmp_path) == {2: [{"step": 5}]}
    assert newest_committed(tmp_path) == tmp_path / "step-4-c1", "that of claim 2 has no manifest"
