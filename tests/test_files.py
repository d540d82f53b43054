"""Input is regular files of a bounded size, and what is said of them is one printable line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sagescale.cli.app import main
from sagescale.errors import InputError
from sagescale.files import check_writable, open_input, read_input, read_input_text, shown_path, write_whole
from sagescale.live.dynamo_config import import_dynamo_config
from sagescale.perf import profile_from_source, read_profile
from sagescale.planner.config import AutoscalerConfig
from sagescale.planner.loading import load_settings
from sagescale.sim.faults import read_faults
from sagescale.trace import read_trace


def load_config(path):
    return load_settings((AutoscalerConfig,), [path])


READERS = (read_trace, read_profile, profile_from_source, read_faults, load_config, import_dynamo_config)


def refusal(read, *words):
    with pytest.raises(InputError) as caught:
        read(*words)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) <= 2000
    return message


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.mark.parametrize("read", READERS)
def test_no_reader_waits_for_a_pipe_or_reads_a_device(read, pipe):
    for path in (pipe, Path("/dev/zero")):
        message = refusal(read, path)
        assert message.startswith(f"{path}: not a regular file (expected a")


@pytest.mark.parametrize("read", READERS)
def test_no_reader_reads_what_is_too_large(read, tmp_path):
    with (tmp_path / "large.yaml").open("wb") as stream:
        stream.truncate(10 * 1024**3)
    assert "large.yaml: 10737418240 bytes (expected at most" in refusal(read, tmp_path / "large.yaml")


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", ["not-\udcff\udcfe-text", "two\nlines", "\x1b[31mred", "x" * 200])
def test_no_name_of_a_file_makes_another_line(read, name, tmp_path):
    refusal(read, tmp_path / name)
    (tmp_path / name).write_bytes(b"\xff\xfe no reader's")
    refusal(read, tmp_path / name)


COMMANDS = (
    "trace info FILE",
    "trace convert FILE --out OUT",
    "trace synth --pattern steady --duration-s 60 --rps 1 --isl empirical:FILE --osl 5 --out OUT",
    "simulate FILE --json OUT",
    "simulate steady --config FILE --json OUT",
    "simulate steady --faults FILE --json OUT",
    "simulate steady --profile FILE --json OUT",
    "compare-predictors FILE --json OUT",
    "forecast FILE --json OUT",
    "tune FILE --json OUT",
    "profile import FILE --out OUT",
    "profile show FILE",
    "profile validate FILE",
    "profile calibrate h200-llama-3.1-8b-fp8 --requests FILE --out OUT",
    "config validate FILE",
    "config show --config FILE",
    "config import FILE --out OUT",
    "plan --config FILE --dry-run",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_in_one_line_and_leaves_nothing_half_written(
    command, pipe, tmp_path, monkeypatch, capsys
):
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"\x1b[31m\xff\0" * 20)
    for file in (pipe, Path("/dev/zero"), garbage):
        words = command.replace("FILE", str(file)).replace("OUT", str(tmp_path / "out.csv")).split()
        monkeypatch.setattr("sys.argv", ["sagescale", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert (ended.value.code, out) == (2, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert err.removesuffix("\n").isprintable()
        assert str(file) in err
        assert sorted(path.name for path in tmp_path.iterdir()) == ["garbage", "pipe"]


def test_a_file_is_read_whole_or_refused(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"\xef\xbb\xbfabc")
    assert read_input(path, "a test", 6) == b"\xef\xbb\xbfabc"
    assert read_input_text(path, "a test", 6) == "abc"
    assert "x: 6 bytes (expected at most 5 of a test)" in refusal(open_input, path, "a test", 5)
    path.write_bytes(b"ab\xff")
    assert "x: byte 2: not UTF-8 text (expected a test)" in refusal(read_input_text, path, "a test", 9)
    assert "is a directory" in refusal(open_input, tmp_path, "a test", 5)
    assert "No such file" in refusal(open_input, tmp_path / "y", "a test", 5)
    assert "null byte" in refusal(open_input, "a\0b", "a test", 5)


def test_a_name_that_is_no_text_is_shown_as_bytes():
    assert shown_path(Path(os.fsdecode(b"a\xff.csv"))) == r"a\xff.csv"


def test_an_error_is_one_printable_line_whatever_it_quotes():
    message = str(InputError("a\nb\x1b[31m\udcff" + "x" * 5000))
    assert message.startswith("a b?[31m?")
    assert message.isprintable()
    assert len(message) == 2000


def test_standard_output_that_was_sent_to_a_file_is_written_where_it_stands(tmp_path):
    out = tmp_path / "out.txt"
    code = (
        "from pathlib import Path; from sagescale.files import write_whole; print('before');"
        "names = '/dev/stdout', '/dev/fd/1', '/proc/self/fd/1';"
        "[write_whole(Path(name), b'document\\n') for name in names];"
        "print('behind')"
    )
    with out.open("wb") as stream:
        subprocess.run([sys.executable, "-c", code], stdout=stream, check=True)
    assert out.read_text().split() == ["before", "document", "document", "document", "behind"]
    assert Path("/dev/stdout").is_symlink()


def test_of_a_link_the_file_it_leads_to_is_written(tmp_path):
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    for _ in range(2):  # there is none yet, and there is one
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        write_whole(link, b"{}")
        assert link.is_symlink()
        assert target.read_bytes() == b"{}"


def test_what_is_not_open_for_writing_is_refused_before_the_work():
    reading = os.open(os.devnull, os.O_RDONLY)
    try:
        with pytest.raises(
            InputError, match=rf"/dev/fd/{reading}: cannot be written to: it is open for reading"
        ):
            check_writable(Path(f"/dev/fd/{reading}"))
    finally:
        os.close(reading)
    with pytest.raises(InputError, match=rf"/dev/fd/{reading}: cannot be written to: Bad file descriptor"):
        check_writable(Path(f"/dev/fd/{reading}"))
