"""How far one model is from what another profile's engine was measured to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sagescale.errors import InputError
from sagescale.perf.fit.regression import fit_error

if TYPE_CHECKING:
    from sagescale.perf.model import ProfileModel
    from sagescale.perf.profile import FitError, Profile

__all__ = ["decode_error", "prefill_error"]


def prefill_error(model: ProfileModel, measured: Profile) -> FitError:
    """Return the model's relative error at the prompts ``measured`` holds, each measured alone.

    Raises InputError when it holds none.
    """
    rows = measured.prefill.measured
    lone = [
        (n, ms) for n, batch, ms in zip(rows.isl_tokens, rows.batch, rows.ttft_ms, strict=True) if batch == 1
    ]
    if not lone:
        raise InputError(f"profile '{measured.name}': no measured prefill points to compare with")
    return fit_error(np.array([model.ttft_ms(n) for n, _ in lone]), np.array([ms for _, ms in lone]))


def decode_error(model: ProfileModel, measured: Profile) -> FitError:
    """Return the model's relative error at the decode points ``measured`` holds, within the model's slots.

    Raises InputError when it holds none.
    """
    rows = measured.decode.measured
    points = [
        (n, context, ms)
        for n, context, ms in zip(rows.concurrency, rows.context_tokens, rows.itl_ms, strict=True)
        if n <= model.max_num_seqs
    ]
    if not points:
        raise InputError(f"profile '{measured.name}': no measured decode points to compare with")
    fitted = np.array([model.itl_ms(n, context) for n, context, _ in points])
    return fit_error(fitted, np.array([ms for _, _, ms in points]))
