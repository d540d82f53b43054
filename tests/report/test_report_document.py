"""Result documents as JSON: what is written is read again, from files of before as well, with any pools."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from report_documents import comparison, document, faulty, run, three_pools
from sagescale.document import ResultDocument, as_keys, from_keys, read_result
from sagescale.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def written(made: object) -> Any:
    return json.loads(json.dumps(made, default=as_keys, allow_nan=False))


@pytest.mark.parametrize("made", [document(), comparison(), faulty(), three_pools()])
def test_every_key_of_a_document_is_read_and_written_again(made: Any) -> None:
    again = written(from_keys(ResultDocument, made))

    def kept(old: Any, new: Any) -> bool:
        """Whether all that was there is there, and nothing beside it but None."""
        if isinstance(old, dict):
            return all(new[key] is None for key in new.keys() - old) and all(
                key in new and kept(old[key], new[key]) for key in old
            )
        if isinstance(old, list):
            return len(old) == len(new) and all(map(kept, old, new))
        return bool(old == new)

    assert kept(made, again)
    assert written(from_keys(ResultDocument, again)) == again


def test_pools_are_known_by_name_however_many_there_are() -> None:
    (read,) = from_keys(ResultDocument, three_pools()).runs
    assert tuple(read.timeline.pools) == ("prefill", "decode", "spare")
    assert read.timeline.pools["spare"].ready == read.timeline.pools["prefill"].ready
    assert read.gpu_hours.pools["spare"] == 0.5
    assert read.scaling.launched == {"prefill": 2, "decode": 6, "spare": 3}


def test_a_document_of_before_surges_faults_and_misses_by_cause_is_read(tmp_path: Path) -> None:
    old = run()
    for key in ("surges", "faults"):
        old.pop(key, None)
    del old["scaling"]["surges"], old["forecast"]["isl"]["coverage_p90"]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(document(old)))
    (read,) = read_result(path).runs
    assert read.surges is read.faults is read.scaling.surges is read.kind is None
    assert read.forecast.isl.coverage_p90 is None
    assert read.sla.attainment == old["sla"]["attainment"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 2, "runs": []}', "[" * 100_000])
def test_what_is_no_result_document_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"other\.json: .*expected"):
        read_result(path)
