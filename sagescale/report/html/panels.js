// What each panel of a run shows: traces, lines across and the y axis. Every panel has the same x axis.

// A run's columns as lists, with what several panels need.
function readRun(place) {
  const run = embedded(`run-data-${place}`);
  const length = run.t.length;
  for (const [key, column] of Object.entries(run.columns)) {
    if (!Array.isArray(column)) run.columns[key] = new Array(length).fill(column);
  }
  // Times of the clock, where the trace has them: all of a run are moved by its start.
  run.start = run.start_ms || 0;
  run.t = run.t.map((at) => run.start + at);
  run.faults = run.faults.map((fault) => ({ ...fault, t: run.start + fault.t, until: fault.until === null ? null : run.start + fault.until }));
  run.surges = run.surges.map((surge) => ({ ...surge, t: run.start + surge.t }));
  run.step = run.step_ms || (length > 1 ? run.t[1] - run.t[0] : (length && run.t[0] - run.start) || 60e3);
  run.end = length ? run.t[length - 1] : run.start + run.step;
  // A forecast is of the window after its tick.
  run.next = run.t.map((at, i) => (i + 1 < length ? run.t[i + 1] : at + run.step));
  run.reasonsAt = (i) => run.reasons.sets[run.reasons.at[i]];
  return run;
}

function line(name, x, y, look, format) {
  return {
    type: "scatter", mode: "lines", name, ...dashed(x, y), line: { width: x.length > 600 ? 0.9 : 1.6, ...look }, values: y, readout: format || number,
  };
}

// A value with unknown ones on both sides would be no line: it becomes a short dash.
function dashed(x, y) {
  const alone = (i) => y[i] !== null && (y[i - 1] ?? null) === null && (y[i + 1] ?? null) === null;
  if (!y.some((_, i) => alone(i))) return { x, y };
  const half = (x.length > 1 ? x[1] - x[0] : 60e3) / 4;
  const ends = x.map((at, i) => (alone(i) ? [at - half, at + half] : [at]));
  return { x: ends.flat(), y: ends.flatMap((each, i) => each.map(() => y[i])) };
}

const known = (values) => values.filter((value) => value !== null);
const largest = (...columns) => columns.reduce((top, c) => known(c).reduce((a, b) => Math.max(a, b), top), 0);

function target(value, words, colour, below = false) {
  return value === null
    ? { shapes: [], annotations: [] }
    : {
        shapes: [
          {
            type: "line", xref: "paper", x0: 0, x1: 1, y0: value, y1: value,
            line: { color: colour, width: 1.3, dash: "6px,3px" },
          },
        ],
        annotations: [
          {
            xref: "paper", x: 1, xanchor: "right", y: value, yanchor: below ? "top" : "bottom", yshift: below ? 1 : -1, showarrow: false,
            text: words, font: { size: 10.5, color: colour },
          },
        ],
      };
}

// Windows above a target: a shape besides the colour, as ▲ is in the text.
function breaches(x, y, limit, colour) {
  const over = x.map((_, i) => i).filter((i) => y[i] !== null && limit !== null && y[i] > limit);
  return {
    type: "scatter", mode: "markers", name: "above target", x: over.map((i) => x[i]), y: over.map((i) => y[i]),
    marker: { symbol: "triangle-up", size: x.length > 300 ? 4 : 7, color: colour },
  };
}

function latency(run, name, limit, c) {
  const { t, columns } = run;
  const [mean, p50, p99] = ["mean", "p50", "p99"].map((part) => columns[`${name}_${part}_ms`]);
  const top = largest(p99, mean);
  const log = top > 8 * (limit || top);
  const made = {
    traces: [
      line("p99", t, p99, { color: c.ink }),
      line("mean", t, mean, { color: c.blue, dash: "5px,2px" }),
      line("p50", t, p50, { color: c.green, dash: "1.5px,2.5px" }),
      breaches(t, p99, limit, c.vermillion),
    ],
    ...target(limit, `target ${number(limit)} ms`, c.vermillion),
    yaxis: log
      ? { type: "log", dtick: 1, range: logRange(p50, mean, p99, [limit]) }
      : { range: [0, 1.18 * Math.max(top, limit || 0) || 1] },
    note: log ? "log scale" : "",
  };
  if (log) for (const each of [...made.annotations]) each.y = Math.log10(each.y);
  return made;
}

function logRange(...series) {
  const values = known(series.flat()).filter((value) => value > 0);
  const [low, high] = values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, 0]);
  return high > 0 ? [Math.log10(low / 1.3), Math.log10(high * 1.5)] : [0, 1];
}

function instances(run, pool, c) {
  const { columns } = run;
  // What a decision left holds until the next tick, hence steps, and one entry more: the initial pools.
  const x = [run.start, ...run.t, run.end + run.step / 2];
  const held = (values) => [...values, values[values.length - 1]];
  const state = (name, colour, shape) => ({
    type: "scatter", mode: "lines", name, x, y: held(run.pools[pool][name]), values: held(run.pools[pool][name]), stackgroup: "states", shift: 1,
    line: { shape: "hv", width: 0.6, color: colour }, fillcolor: faint(colour, 0.45),
    ...(shape ? { fillpattern: { shape, fgcolor: colour, bgcolor: faint(colour, 0.18), size: 5, solidity: 0.35 } } : {}),
    readout: number, area: shape || "solid",
  });
  const decided = [run.pools[pool].ready[0], ...columns[`${pool}_target`]];
  const top = decided.reduce((a, v) => Math.max(a, v ?? 0), 0);
  const surges = run.surges.filter((surge) => surge[pool][1] !== surge[pool][0]);
  const crashes = run.faults.filter((fault) => fault.pool === pool && fault.until === null);
  return {
    traces: [
      state("ready", c.blue, ""),
      state("starting", c.orange, "/"),
      state("draining", c.purple, "."),
      ...(largest(run.pools[pool].waiting) ? [state("waiting", c.grey, "x")] : []),
      {
        ...line("decided", x, held(decided), {
          color: c.ink, shape: "hv", ...(x.length > 600 ? { width: 0.5 } : { dash: "4px,2px", width: 1.4 }),
        }), shift: 1,
      },
      {
        type: "scatter", mode: "markers", name: "emergency", x: surges.map((s) => s.t), y: surges.map((s) => s[pool][1]),
        marker: { symbol: "triangle-up-open", size: 7, color: c.ink, line: { width: 1.2 } },
      },
      {
        type: "scatter", mode: "markers", name: "fault", x: crashes.map((f) => f.t), y: crashes.map(() => 0.06 * (top || 1)),
        marker: { symbol: "x", size: 8, color: c.vermillion, line: { color: c.paper, width: 1 } },
      },
    ],
    explained: true,
    yaxis: { rangemode: "tozero", tickformat: "d", ...(top <= 5 ? { dtick: 1 } : { nticks: 5 }) },
  };
}

// A pool's size as its tick found it, counted as targets are: without what drains.
function sizeFound(run, pool, i) {
  return ["ready", "starting", "waiting"].reduce((sum, state) => sum + run.columns[`${pool}_${state}`][i], 0);
}

// A decision and its reasons, a line each.
function decisionText(run, i) {
  const { columns } = run;
  const pools = run.names.map((pool) => {
    const [from, to] = [sizeFound(run, pool, i), columns[`${pool}_target`][i]];
    return from === to ? `${pool} stays at ${number(to)}` : `${pool} ${number(from)} → ${number(to)}`;
  });
  const p90 = columns.requests_forecast_p90[i];
  const expected = columns.requests_forecast[i];
  const from = i > 0 ? run.t[i - 1] : run.start;
  const faults = run.faults.filter((fault) => fault.t > from && fault.t <= run.t[i]);
  const surges = run.surges.filter((surge) => nearest(run.t, surge.t) === i);
  return [
    pools.join(", "),
    expected === null
      ? "no load expected"
      : `expects ${number(expected)} ${run.per_second ? "requests/s" : "requests"}${p90 === null ? "" : `, p90 ${number(p90)}`}`,
    `corrections: ${run.corrections.map((pool) => `${pool} ${number(columns[`${pool}_correction`][i])}`).join(", ")}`,
    ...run.reasonsAt(i).map((why) => `• ${why}`),
    ...surges.map((surge) => `▲ ${clock(surge.t, run)} between decisions: ${emergencyText(run, surge)}`),
    ...faults.map((fault) => `× ${fault.kind}${fault.restarted ? `, ${number(fault.restarted)} requests restarted` : ""}`),
  ];
}

function emergencyText(run, surge) {
  const grown = run.names.filter((pool) => surge[pool][1] !== surge[pool][0]);
  const moves = grown.map((pool) => `${pool} ${number(surge[pool][0])} → ${number(surge[pool][1])}`);
  return [moves.join(", "), ...surge.reasons.filter((why) => !MOVES.has(why))].join("; ");
}

// What was done; every other reason says why.
const MOVES = new Set(["scale up", "scale down", "steady"]);

function decisions(run, c) {
  const { t, columns } = run;
  // From the top in the order of the pools, one apart; the reasons below the first.
  const rows = Object.fromEntries(run.names.map((pool, i) => [pool, run.names.length - 1 - i]));
  const middle = rows[run.names[0]] - 0.5;
  const marks = { up: [], down: [], why: [] };
  for (const pool of Object.keys(rows)) {
    t.forEach((at, i) => {
      const move = columns[`${pool}_target`][i] - sizeFound(run, pool, i);
      if (move) marks[move > 0 ? "up" : "down"].push([at, rows[pool]]);
    });
  }
  // Marked where the reasons change; a line lasts as long as they hold.
  const reasons = t.map((_, i) => run.reasonsAt(i).filter((why) => !MOVES.has(why)).join());
  const lasting = [];
  t.forEach((at, i) => {
    if (!reasons[i]) return;
    if (reasons[i] !== reasons[i - 1]) marks.why.push([at, middle]);
    lasting.push([at, middle], [run.next[i], reasons[i + 1] ? middle : null]);
  });
  const surges = run.surges.flatMap((surge) =>
    Object.keys(rows).filter((pool) => surge[pool][1] !== surge[pool][0]).map((pool) => [surge.t, rows[pool] + 0.3]),
  );
  const dots = (name, points, marker) => ({
    type: "scatter", mode: "markers", name, x: points.map((p) => p[0]), y: points.map((p) => p[1]), marker,
  });
  const many = t.length > 300;
  const size = many ? 6 : 9;
  return {
    traces: [
      {
        type: "scatter", mode: "lines", name: "for as long", unlisted: true, x: lasting.map((p) => p[0]), y: lasting.map((p) => p[1]),
        line: { color: faint(c.purple, 0.6), width: 1 },
      },
      dots("up", marks.up, { symbol: "triangle-up", size, color: c.blue }),
      dots("down", marks.down, { symbol: "triangle-down", size, color: c.orange }),
      dots("why", marks.why, {
        symbol: "diamond-open", size: size - 1, color: faint(c.purple, many ? 0.5 : 1), line: { width: many ? 0.7 : 1.5 },
      }),
      dots("emergency", surges, { symbol: "triangle-up-open", size: size - 2, color: c.blue, line: { width: 1.2 } }),
      {
        type: "scatter", mode: "lines", name: "steady", unlisted: true, x: run.names.flatMap(() => [run.start, run.end, null]), y: run.names.flatMap((pool) => [rows[pool], rows[pool], null]),
        line: { color: c.grey, width: 1, dash: "1px,3px" },
      },
    ],
    explained: true,
    yaxis: {
      range: [-0.6, run.names.length - 0.4], tickvals: [...Object.values(rows), middle], ticktext: [...run.names, "why"], showgrid: false,
      // Longer names have no room beside the panel.
      ticklabelposition: run.names.some((name) => name.length > 8) ? "inside top" : "outside",
    },
  };
}

function gpus(run, c) {
  const held = run.pools.gpus;
  const top = 1.25 * Math.max(largest(held), run.bound_gpus || 0) || 1;
  const bound = target(run.bound_gpus, `lower bound, on average ${number(run.bound_gpus)}`, c.green);
  const seen = run.budget !== null && run.budget <= 2.5 * top;
  const budget = target(seen ? run.budget : null, `budget ${number(run.budget)}`, c.vermillion);
  for (const shape of bound.shapes) shape.line.dash = "2px,2px";
  return {
    traces: [
      {
        ...line("in use", [run.start, ...run.t, run.end + run.step / 2], [...held, held[held.length - 1]], { color: c.ink, shape: "hv" }),
        shift: 1,
        fill: "tozeroy", fillcolor: faint(c.grey, 0.18),
      },
    ],
    shapes: [...bound.shapes, ...budget.shapes],
    annotations: [...bound.annotations, ...budget.annotations],
    yaxis: { range: [0, seen ? 1.18 * Math.max(run.budget, top / 1.25) : top], tickformat: "~r", nticks: 5 },
    note: run.budget !== null && !seen ? `budget ${number(run.budget)}, far above` : "",
  };
}

const POOL_LINES = [(c) => ({ color: c.blue }), (c) => ({ color: c.orange, dash: "5px,2px" }), (c) => ({ color: c.green, dash: "1.5px,2.5px" })];

const PANELS = {
  load(run, c) {
    const { t, next, columns } = run;
    const p90 = columns.requests_forecast_p90;
    return {
      traces: [
        // The readout is of the forecast for the window under the cursor, made a tick before.
        { ...line("forecast", next, columns.requests_forecast, { color: c.blue, dash: "5px,2px" }), shift: -1 },
        {
          ...line("p90", next, p90, { color: faint(c.blue, 0.5), width: 0.8 }),
          fill: "tonexty", fillcolor: faint(c.blue, 0.2), area: "solid", shift: -1,
        },
        line("observed", t, columns.requests, { color: c.ink }),
      ],
      yaxis: { rangemode: "tozero" },
      unit: run.per_second ? "requests/s" : "requests a window",
    };
  },
  attainment(run, c) {
    const { t, columns } = run;
    const values = columns.attainment;
    const low = known(values).reduce((a, b) => Math.min(a, b), 1);
    const floor = Math.min(0.9, Math.floor(10 * low) / 10);
    const asked = run.attainment_asked;
    const below = t.map((_, i) => i).filter((i) => asked !== null && values[i] !== null && values[i] < asked);
    return {
      traces: [
        line("attained", t, values, { color: c.ink }, percent),
        {
          type: "scatter", mode: "markers", name: "below asked", x: below.map((i) => t[i]),
          y: below.map((i) => values[i]),
          marker: { symbol: "triangle-down", size: t.length > 300 ? 5 : 7, color: c.vermillion },
        },
      ],
      ...target(asked, `asked ${percent(asked)}`, c.vermillion, true),
      yaxis: { range: [floor - 0.04 * (1 - floor), 1 + 0.08 * (1 - floor)], tickformat: ".0%", nticks: 5 },
    };
  },
  ttft: (run, c) => latency(run, "ttft", run.target_ttft_ms, c),
  itl: (run, c) => latency(run, "itl", run.target_itl_ms, c),
  gpus,
  queues(run, c) {
    const { t, columns } = run;
    if (run.names.includes("aggregated")) {
      return {
        traces: [
          line("running", t, columns.running_decode, { color: c.grey, width: 1.2 }),
          line("waiting", t, columns.queued_prefill, { color: c.vermillion, dash: "1.5px,2.5px", width: 2 }),
        ],
        yaxis: { rangemode: "tozero" },
      };
    }
    return {
      traces: [
        line("running in decode", t, columns.running_decode, { color: c.grey, width: 1.2 }),
        line("waiting for prefill", t, columns.queued_prefill, { color: c.blue, dash: "5px,2px" }),
        line("waiting for decode", t, columns.queued_decode, { color: c.vermillion, dash: "1.5px,2.5px", width: 2 }),
      ],
      yaxis: { rangemode: "tozero" },
    };
  },
  decisions,
  kv(run, c) {
    const { t, columns } = run;
    const top = largest(columns.kv_usage);
    return {
      traces: [line("in use", t, columns.kv_usage, { color: c.ink }, percent)],
      yaxis: { range: [0, Math.min(1.05, Math.max(1.18 * top, 0.05))], tickformat: ".0%", nticks: 5 },
    };
  },
  hits(run, c) {
    const { t, columns } = run;
    const top = largest(columns.prefix_hit_rate);
    return {
      traces: [line("hit", t, columns.prefix_hit_rate, { color: c.ink }, percent)],
      yaxis: { range: [0, Math.min(1.05, Math.max(1.18 * top, 0.05))], tickformat: ".0%", nticks: 5 },
    };
  },
  lengths(run, c) {
    const { t, columns } = run;
    return {
      traces: [
        line("ISL", t, columns.isl, { color: c.blue }),
        line("OSL", t, columns.osl, { color: c.orange, dash: "5px,2px" }),
      ],
      yaxis: { rangemode: "tozero" },
    };
  },
  corrections(run, c) {
    const { t, columns } = run;
    const one = target(1, "", c.muted);
    for (const shape of one.shapes) shape.line.dash = "2px,2px";
    return {
      traces: [
        ...run.corrections.map((pool, i) => line(pool, t, columns[`${pool}_correction`], POOL_LINES[i % POOL_LINES.length](c))),
      ],
      ...one,
      yaxis: { rangemode: "tozero" },
    };
  },
};
