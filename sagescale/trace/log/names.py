"""The names that gateways, engines and clients give to the columns of their request logs."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from sagescale.trace.log.spec import REQUIRED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Letters and digits only, the likeliest first. OpenAI's usage block, LiteLLM, vLLM, Envoy AI gateway,
# OpenTelemetry's gen_ai.usage.*, Langfuse, Kong, Azure API management.
_USUAL: dict[str, tuple[str, ...]] = {
    ours: tuple(names.split())
    for ours, names in {
        "arrival": """
            arrival arrivaltime arrivals arrivedat arrivaltimestamp starttime startedat start
            requesttime requeststarttime requeststart requesttimestamp receivedat received
            timestamp time ts createdat created datetime date eventtime timestampms timestampus
            timestampns starttimems starttimens arrivalms arrivaltimens arrivaltimems
            starttimeunixnano logtime
        """,
        "isl": """
            isl prompttokens inputtokens usageprompttokens usageinputtokens nprompttokens
            numprompttokens numinputtokens inputtoks contexttokens promptlen promptlength
            inputlen inputlength requesttokens tokensin intokens numprefilltokens
            prompttokencount inputtokencount genaiusageinputtokens genaiusageprompttokens
            llmusageprompttokens inputsequencelength
        """,
        "osl": """
            osl completiontokens outputtokens usagecompletiontokens usageoutputtokens
            generatedtokens generationtokens ngenerationtokens numgenerationtokens
            numoutputtokens numcompletiontokens outputtoks outputlen outputlength responsetokens
            tokensout outtokens numdecodetokens completiontokencount outputtokencount
            candidatestokencount genaiusageoutputtokens genaiusagecompletiontokens
            llmusagecompletiontokens outputsequencelength
        """,
        "cached_tokens": """
            cachedtokens promptcachedtokens cachedprompttokens cachereadinputtokens
            numcachedtokens usageprompttokensdetailscachedtokens cachedinputtokens
        """,
        "priority": "priority requestpriority",
        "ttft": """
            ttft ttfts ttftms timetofirsttoken timetofirsttokenms timetofirsttokens
            firsttokentime firsttokens firsttokenat completionstarttime firsttoken firsttokenms
            firsttokenlatency firsttokenlatencyms
        """,
        "done": """
            done dones endtime endedat end finishtime finishedat finished completedat
            finishedtime responsetime endtimems duration durationms durations e2elatency
            e2elatencyms latency latencyms requestlatency totaltime elapsedtime
        """,
    }.items()
}

_APART = ("model", "modelname", "modelid", "status", "statuscode", "responsecode", "httpstatus", "code")


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def guessed(columns: Sequence[str]) -> dict[str, str]:
    """Return the file's column by our name, as far as their names tell; nothing is read by it alone."""
    by_bare = {_bare(name): name for name in reversed(columns)}
    found: dict[str, str] = {}
    for ours, usual in _USUAL.items():
        theirs = next((by_bare[name] for name in usual if name in by_bare), None)
        if theirs is None:
            # usage.prompt_tokens in whatever it is nested
            ends = [name for name in columns if "." in name and _bare(name.rsplit(".", 1)[1]) in usual]
            theirs = ends[0] if ends else None
        if theirs is not None and theirs not in found.values():
            found[ours] = theirs
    return found


def kept_apart(columns: Iterable[str]) -> tuple[str, ...]:
    """Return the columns that tell models, and answers from failures, apart."""
    return tuple(name for name in columns if _bare(name.rsplit(".", 1)[-1]) in _APART)


def suggested_command(path: str, columns: Sequence[str]) -> str:
    """Return ``sagescale trace info FILE --columns ...`` with the file's own names where they are known."""
    known = guessed(columns)
    wanted = [*REQUIRED, *(name for name in ("cached_tokens", "priority") if name in known)]
    pairs = ",".join(f"{name}={known.get(name, 'COLUMN')}" for name in wanted)
    return f"sagescale trace info {shlex.quote(path)} --columns {shlex.quote(pairs)}"
