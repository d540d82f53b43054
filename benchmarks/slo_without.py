"""slo with one of its mechanisms taken out: `--without NAME` of slo_draws.py and slo_settings.py.

docs/slo.md says what each is.
"""

from __future__ import annotations

import dataclasses

from sagescale.planner.policy.slo import caution, day, demand, given_up, policy, pool, promise
from sagescale.planner.policy.slo.in_service import InService
from sagescale.planner.policy.slo.pool import Pool

_Slo = policy.SloPolicy


def _put(where, name, what):
    return lambda: setattr(where, name, what)


def _learn_of(**changed):
    """Have the factor learn from windows that are changed."""
    learn = caution.Caution.learn
    return _put(caution.Caution, "learn", lambda self, window: learn(self, window._replace(**changed)))


def _half_each(self, seen):
    self._prefill.part = self._decode.part = 0.5


def _unweighted(self, now_s, lasts_s, load):
    factor, self.caution._log = self.caution._log, 0.0
    _looked(self, now_s, lasts_s, load)
    self.caution._log = factor


def _patience_of(starts):
    def put():
        pool._STARTS = starts
        Pool._patience = property(lambda self: 1, lambda self, value: None)

    return put


def _uncounted(self, seen):
    _count(self, dataclasses.replace(seen, running_decode=None))


_looked, _count = Pool.looked, _Slo._count

WITHOUT = {
    # Load, scenarios
    "auto": _put(_Slo, "default_predictor", "constant"),
    "in_service": _put(InService, "to_go_s", property(lambda self: 0.0, lambda self, value: None)),
    "counted": _put(_Slo, "_count", _uncounted),
    "averaging": _put(demand.Demand, "_smoothed", lambda self, load: 1.0),
    "chance": _put(InService, "by_chance", lambda self, window_s, ahead: 0.0),
    "correction": _put(demand, "_recalibrated", lambda planned, seen, weights, plan, ahead: (planned, plan)),
    "likeness": _put(demand, "_ALIKE", 1e9),
    "worst": _put(demand, "_NEAR", -1.0),
    # Fewest GPUs, promise, factor
    "worth": _put(Pool, "_worth_it", lambda self, size, scenarios, allowed: size),
    "promise": _put(promise.Promise, "allowed", property(lambda self: self._promised)),
    "parts": _put(_Slo, "_share_out", _half_each),
    "factor": _put(caution.Caution, "factor", 1.0),
    "explained": _learn_of(explained=0.0),
    "other": _learn_of(other=0.0),
    "below_one": _learn_of(left=0.0),
    "backlog": _put(_Slo, "_backlog", lambda self, pool, seen, surprise: 0.0),
    # The day, going down, between ticks
    "day": _put(day.Day, "enough", lambda self, expected: None),
    "day_eighths": _put(day, "_SMALL", 0),
    "day_more": _put(day, "_MORE", 1.0),
    "replay": _put(Pool, "kept", lambda self, wanted, current, allowed: wanted),
    "replay_factor": _put(Pool, "looked", _unweighted),
    "patience": _patience_of(0),
    "patience_second_start": _patience_of(1),
    "patience_six_minutes": _patience_of(2),
    "given_up": _put(given_up.GivenUp, "kept", lambda self, size, current, load, *, try_again=False: size),
    "given_up_soon": _put(given_up, "_SOON_S", 0.0),
    "given_up_long": _put(given_up, "_LONG_S", 1e12),
    "try_again": _put(promise.Promise, "hardly_used", lambda self, start_s: False),
    "surge": _put(_Slo, "check", lambda self, seen: None),
    "surge_known": _put(Pool, "holds", lambda self, counts: False),
}
"""What takes each out."""
