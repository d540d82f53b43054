"""judge.py OUT.json [names...]: runs slo on constant-setting scenarios (azure, m-large, synthetic only)."""

import sys, json, time, dataclasses, os

for l in ("OPENBLAS", "OMP", "MKL", "NUMBA"):
    os.environ.setdefault(f"{l}_NUM_THREADS", "1")
import numpy as np
from sagescale.perf import load_profile, ProfileModel
from sagescale.planner import AutoscalerConfig
from sagescale.sim.config import SimulatorConfig
from sagescale.sim.startup import StartupDelay
from sagescale.sim.simulate import simulate
from sagescale.sim.measures import Served, gpu_hours
from sagescale.sim.part import Part, measure_part
from sagescale.trace import TransformSpec, read_trace, slice_trace
from sagescale.trace.transforms import apply_transforms
from sagescale.trace.synth import parse_lengths, synthesise, Steady, Step
import sagescale.trace.synth as synth

T = os.environ.get("SAGESCALE_SHARED", "../shared") + "/traces/"
CONV, CODE, ML = (
    T + "azure_llm_2023_conv.csv",
    T + "azure_llm_2023_code.csv",
    T + "servegen_m-large_2d.parquet",
)
S, L = "h200-llama-3.1-8b-fp8", "h100-llama-3.3-70b-fp8-tp4"
cache = {}


def rec(p, a=None, b=None):
    if p not in cache:
        cache[p] = read_trace(p)
    t = cache[p]
    return t if a is None else slice_trace(t, a, b)


def az(p, scale, seed):
    return apply_transforms(rec(p), TransformSpec(rate_scale=scale, jitter_s=30.0, seed=seed))


def ml(scale, seed, a=0, b=86400):
    return apply_transforms(rec(ML, a, b), TransformSpec(rate_scale=scale, jitter_s=30.0, seed=seed))


def sy(pattern, dur, isl, osl, seed):
    return synthesise(pattern, dur, parse_lengths("--isl", isl), parse_lengths("--osl", osl), seed=seed)


def mmpp(seed, dur=14400, low=6.0, high=18.0, mean=20.0):
    """clumps of tens of seconds: two rates, exponential stays."""
    r = np.random.default_rng(seed)
    t = 0.0
    k = 0
    out = []
    while t < dur:
        stay = r.exponential(mean * (1 if k % 2 else 3))
        rate = high if k % 2 else low
        n = r.poisson(rate * stay)
        out.append(np.sort(t + r.random(n) * stay))
        t += stay
        k += 1
    a = np.concatenate(out)
    a = a[a < dur]
    a = a - a[0]
    t = sy(
        Steady(len(a) / dur * 1.2), dur, "lognormal:mean=1155,p99=4142", "lognormal:mean=211,p99=601", seed
    )
    assert len(t) >= len(a)
    return dataclasses.replace(t, arrival_s=a, isl=t.isl[: len(a)].copy(), osl=t.osl[: len(a)].copy())


def cut(t, a):
    t2 = sy(Steady(len(a) / (a[-1] - a[0]) * 1.2), a[-1] - a[0], *CV, 7)
    return dataclasses.replace(
        t2, arrival_s=a - a[0], isl=t2.isl[: len(a)].copy(), osl=t2.osl[: len(a)].copy()
    )


def clumpday(seed, hours=10, rate=30.0, ratio=5.0, mean=20.0):
    r = np.random.default_rng(seed)
    out = []
    for h in range(hours):
        t = h * 3600.0
        level = rate * (1 + 0.4 * np.sin(h / hours * 6.28))
        if h % 3 == 0:
            n = r.poisson(level * 3600)
            out.append(np.sort(t + r.random(n) * 3600))
            continue
        end = t + 3600
        k = 0
        low = level / (1 + (ratio - 1) * 0.25)
        while t < end:
            stay = min(r.exponential(mean * (1 if k % 2 else 3)), end - t)
            n = r.poisson((low * ratio if k % 2 else low) * stay)
            out.append(np.sort(t + r.random(n) * stay))
            t += stay
            k += 1
    return cut(None, np.concatenate(out))


def burstday(seed, hours=10, rate=30.0, cv=5.0):
    r = np.random.default_rng(seed)
    out = []
    for h in range(hours):
        t = h * 3600.0
        level = rate * (1 + 0.4 * np.sin(h / hours * 6.28))
        c = 1.0 if h % 3 == 0 else cv
        g = r.gamma(1 / c**2, c * c / level, int(level * 3600 * 1.3))
        a = t + np.cumsum(g)
        out.append(a[a < t + 3600])
    return cut(None, np.concatenate(out))


CV = "lognormal:mean=1155,p99=4142", "lognormal:mean=211,p99=601"
# name: (trace(seed), profile, ttft, itl, startup, interval, judged from)
SC = {
    "chat": (lambda s: az(CONV, 20, s), S, 300, 30, 60, 60, 1416),
    "chat5": (lambda s: az(CONV, 5, s), S, 300, 30, 60, 60, 1416),
    "code": (lambda s: az(CODE, 20, s), S, 500, 30, 60, 30, 1416),
    "code5": (lambda s: az(CODE, 5, s), S, 500, 30, 60, 30, 1416),
    "large": (lambda s: az(CONV, 10, s), L, 1000, 50, 300, 60, 1416),
    "chat_slow": (lambda s: az(CONV, 20, s), S, 300, 30, 120, 60, 1416),
    "code_large": (lambda s: az(CODE, 20, s), L, 1500, 50, 120, 60, 1416),
    "ml_small": (lambda s: ml(6, s, 0, 43200), S, 500, 30, 60, 60, 7200),
    "ml_sm30": (lambda s: ml(6, s, 86400, 129600), S, 300, 30, 60, 30, 7200),
    "ml10": (lambda s: ml(10, s, 72000, 93600), L, 1000, 50, 180, 60, 3600),
    "ml1s": (lambda s: ml(1, s, 0, 86400), L, 800, 45, 60, 30, 7200),
    "ml3": (lambda s: ml(3, s, 28800, 64800), L, 1000, 50, 180, 60, 7200),
    "ml1": (lambda s: ml(1, s, 86400, 172800), L, 1000, 50, 180, 60, 7200),
    "bursts": (
        lambda s: sy(synth.Bursty(12, 3.3), 7200, "constant:900", "constant:140", s),
        L,
        1000,
        30,
        60,
        60,
        1800,
    ),
    "burst4": (lambda s: sy(synth.Bursty(40, 4), 14400, *CV, s), S, 300, 30, 60, 60, 1800),
    "burst8": (lambda s: sy(synth.Bursty(60, 8), 14400, *CV, s), S, 500, 30, 60, 60, 1800),
    "burstL": (lambda s: sy(synth.Bursty(10, 4), 14400, *CV, s), L, 1000, 50, 180, 60, 1800),
    "clumps": (lambda s: mmpp(s, low=20, high=60), S, 300, 30, 60, 60, 1800),
    "clumpsL": (lambda s: mmpp(s, low=6, high=18, mean=45), L, 1000, 50, 180, 60, 1800),
    "clumpday": (lambda s: clumpday(s), S, 300, 30, 60, 60, 3600),
    "clumpdayL": (lambda s: clumpday(s, rate=8), L, 1000, 50, 180, 60, 3600),
    "burstday": (lambda s: burstday(s), S, 300, 30, 60, 60, 3600),
    "burstdayL": (lambda s: burstday(s, rate=8), L, 1000, 50, 180, 60, 3600),
    "spikes": (lambda s: sy(synth.Spikes(20, 100, 900, 90), 14400, *CV, s), S, 300, 30, 60, 60, 3600),
    "diurnal": (lambda s: sy(synth.Diurnal(50, 0.7), 86400, *CV, s), S, 300, 30, 120, 60, 7200),
    "step": (lambda s: sy(Step(15, 75, 7200), 14400, *CV, s), S, 300, 30, 60, 60, 1800),
    "flat": (lambda s: sy(Steady(76), 14400, *CV, s), S, 300, 30, 60, 60, 3600),
}


def launches(run):
    """launches within 10 min of a release in the same pool, all launches."""
    near = tot = 0
    for pool in ("prefill", "decode"):
        last = -1e9
        ev = []
        for d in [t.decision for t in run.ticks] + list(run.surges):
            diff = getattr(d.targets, pool) - getattr(d.current, pool)
            ev.append((d.time_s, diff))
        for t, diff in sorted(ev):
            if diff < 0:
                last = t
            elif diff > 0:
                tot += diff
                if t - last <= 600:
                    near += diff
    return near, tot


def one(name, seed, extra={}):
    tr, prof, ttft, itl, st, iv, frm = SC[name]
    trace = tr(seed)
    p = load_profile(prof)
    cfg = AutoscalerConfig(
        policy="slo",
        target_ttft_ms=ttft,
        target_itl_ms=itl,
        adjustment_interval_sec=iv,
        min_prefill_instances=1,
        max_prefill_instances=128,
        min_decode_instances=1,
        max_decode_instances=128,
        max_gpu_budget=512,
        prefill_gpus_per_instance=p.prefill.gpus_per_instance,
        decode_gpus_per_instance=p.decode.gpus_per_instance,
        **extra,
    )
    sim = SimulatorConfig(startup_delay_s=StartupDelay("uniform", (0.8 * st, 1.2 * st)), simulation_seed=seed)
    b = time.perf_counter()
    run = simulate(trace, p, cfg, sim)
    w = time.perf_counter() - b
    part = measure_part(run, Part(frm))
    sv = Served(run)
    ttft, itl = sv.good
    late = run.trace.arrival_s >= frm
    near, tot = launches(run)
    return dict(
        att=part.attainment,
        ttft=float(ttft[late].mean()),
        itl=float(itl[late].mean()),
        gpuh=part.gpu_hours,
        near=near,
        tot=tot,
        tick_ms=1e3 * run.timing.planner_s / len(run.ticks),
        n=part and sum(part.arrived),
        wall=w,
        pre=sum(part.prefill_gpu_s) / 3600,
        dec=sum(part.decode_gpu_s) / 3600,
    )


def main():
    out = sys.argv[1]
    names = [a for a in sys.argv[2:] if "=" not in a] or list(SC)
    seeds = [0]
    for a in sys.argv[2:]:
        if a.startswith("seeds="):
            seeds = [int(x) for x in a[6:].split(",")]
    base = json.load(open("base.json")) if os.path.exists("base.json") else {}
    res = json.load(open(out)) if os.path.exists(out) else {}
    for n in names:
        for s in seeds:
            r = one(n, s)
            res[f"{n}/{s}"] = r
            json.dump(res, open(out, "w"))
            b = base.get(f"{n}/{s}")
            x = f"{r['gpuh'] / b['gpuh']:.3f} (was {100 * b['att']:.2f})" if b else ""
            print(
                f"{n:10} {s} att {100 * r['att']:6.2f} (ttft {100 * r['ttft']:.2f} itl {100 * r['itl']:.2f}) gpuh {r['gpuh']:7.2f} = {r['pre']:.2f}+{r['dec']:.2f} near {r['near']}/{r['tot']} tick {r['tick_ms']:.1f} ms wall {r['wall']:.0f} s {x}",
                flush=True,
            )


if __name__ == "__main__":
    main()
