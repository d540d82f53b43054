"""Hostile files of every format: a correct reading, or one line; never a traceback.

``python tests/fuzz/fuzz_long.py SECONDS`` does the same for longer and bounds time and memory as well.
"""

from __future__ import annotations

from random import Random

import pytest
from fuzz_mutations import mutated
from fuzz_subjects import SUBJECTS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sagescale.errors import InputError

PARTS = {"source-aiperf", "source-swept"}
"""Samples of one file where a source has several: read, and refused for what is in the others."""


def read_or_refuse(subject, path):
    """Read a file; True where that was possible, False where it was refused as it should."""
    try:
        subject.read(path)
    except InputError as error:
        message = str(error)
        assert message
        assert message.isprintable()
        assert len(message) <= 2000
        return False
    return True


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_sample_itself_is_read(name, tmp_path):
    subject = SUBJECTS[name]
    path = tmp_path / subject.name
    path.write_bytes(subject.sample)
    assert read_or_refuse(subject, path) == (name not in PARTS)


@pytest.mark.parametrize("name", SUBJECTS)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_a_hostile_file_is_read_right_or_refused_in_one_line(name, seed, tmp_path):
    subject = SUBJECTS[name]
    path = tmp_path / subject.name
    path.write_bytes(mutated(subject.sample, Random(seed)))
    read_or_refuse(subject, path)
