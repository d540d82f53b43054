// The comparison: attainment against GPU-hours, and the table to sort.

const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "pentagon", "star"];
const HUES = ["blue", "orange", "green", "purple", "sky", "vermillion", "grey", "ink"];

// Attainment on a scale of nines: equal steps from 90 % to 99 % to 99.9 %. All of them is put at the end.
const NINES = [0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99999];

function ninesScale(values) {
  const least = values.filter((v) => v < 1).reduce((a, v) => Math.min(a, 1 - v), 1e-2);
  const floor = Math.max(least / 3, 1e-6);
  const scale = (v) => -Math.log10(Math.max(1 - v, floor));
  const low = values.reduce((a, v) => Math.min(a, scale(v)), 2);
  const high = values.reduce((a, v) => Math.max(a, scale(v)), 2);
  const edge = 0.06 * (high - low || 1);
  const ticks = NINES.filter((v) => scale(v) >= low - edge && 1 - v > 1.4 * floor);
  const all = values.some((v) => v >= 1);
  return {
    scale,
    range: [low - edge, high + 2 * edge],
    tickvals: [...ticks.map(scale), ...(all ? [scale(1)] : [])],
    ticktext: [...ticks.map((v) => `${+(100 * v).toPrecision(6)} %`), ...(all ? ["100 %"] : [])],
  };
}

// The ends of a run's interval, which is a point where there is but one replicate.
function ends(run) {
  const half = run.attainment_half ?? 0;
  return half ? [Math.max(0, run.attainment - half), run.attainment, Math.min(1, run.attainment + half)] : [run.attainment];
}

class ComparisonView {
  constructor(section) {
    this.section = section;
    this.data = embedded("comparison-data");
    sortable(section.querySelector("#ranking"));
  }

  draw() {
    const c = colours();
    const { runs, front, asked, bound } = this.data;
    const placed = runs.map((run, place) => ({ ...run, place })).filter((run) => run.hours !== null && run.attainment !== null);
    const nines = ninesScale([...placed.flatMap(ends), ...(asked === null ? [] : [asked])]);
    const at = (run) => nines.scale(run.attainment);
    const policies = [...new Set(placed.map((run) => run.policy))];
    nest(placed, policies, nines);
    const traces = [this.frontLine(front.map((place) => runs[place]), at, c)];
    policies.forEach((policy, i) => traces.push(this.points(policy, i, placed, nines, c)));
    const figure = this.section.querySelector("figure.panel");
    const plot = figure.querySelector(".plot");
    const most = placed.reduce((a, run) => Math.max(a, run.hours + (run.hours_half ?? 0)), 0);
    const least = placed.reduce((a, run) => Math.min(a, run.hours - (run.hours_half ?? 0)), bound ?? Infinity);
    const pad = 0.06 * (most - least || most || 1);
    const layout = {
      ...baseLayout(c),
      height: 400,
      margin: { l: 60, r: 16, t: 8, b: 38 },
      hovermode: "closest",
      xaxis: {
        ...axisLook(c), range: [Math.max(0, least - 2 * pad), most + pad], showline: true, ticks: "outside", ticklen: 3,
        title: { text: "GPU-hours", standoff: 6, font: { size: 11 } },
      },
      yaxis: { ...axisLook(c), range: nines.range, tickvals: nines.tickvals, ticktext: nines.ticktext },
      shapes: [],
      annotations: [],
    };
    if (asked !== null) {
      const line_ = target(nines.scale(asked), `asked ${percent(asked)}`, c.vermillion);
      layout.shapes.push(...line_.shapes);
      layout.annotations.push(...line_.annotations);
    }
    if (bound !== null) {
      layout.shapes.push({ type: "line", x0: bound, x1: bound, yref: "paper", y0: 0, y1: 1, line: { color: c.green, width: 1.3, dash: "2px,2px" } });
      layout.annotations.push({
        x: bound, xanchor: "left", xshift: 3, yref: "paper", y: 0, yanchor: "bottom", showarrow: false,
        text: `lower bound ${number(bound)}`, font: { size: 10.5, color: c.green },
      });
    }
    if (printing) Object.assign(layout, { autosize: false, width: plot.clientWidth });
    layout.annotations.push(...labels(placed, front, at, layout, plot.clientWidth, c));
    Plotly.newPlot(plot, traces, layout, CONFIG);
    this.legend(figure, policies, c);
    plot.on("plotly_click", (event) => {
      const place = event.points[0].customdata?.[0];
      if (place !== undefined) window.location.hash = `run-${place}`;
    });
    figure.dataset.points = String(placed.length);
    this.plot = plot;
  }

  purge() {
    if (this.plot) Plotly.purge(this.plot);
    this.plot = null;
  }

  frontLine(runs, at, c) {
    return {
      type: "scatter", mode: "lines", name: "Pareto front", x: runs.map((run) => run.hours), y: runs.map(at),
      line: { shape: "hv", color: c.muted, width: 1.2 }, hoverinfo: "skip",
    };
  }

  points(policy, i, placed, nines, c) {
    const mine = placed.filter((run) => run.policy === policy);
    const hue = c[HUES[i % HUES.length]];
    const symbol = SYMBOLS[i % SYMBOLS.length];
    const halves = mine.some((run) => run.hours_half !== null);
    const about = (run) =>
      [`<b>${plotText(run.name)}</b>`, `${percent(run.attainment)} of requests`, `${number(run.hours)} GPU-hours, ${number(run.ratio)} × the lower bound`,
        `TTFT p99 ${number(run.ttft_p99)} ms, ITL p99 ${number(run.itl_p99)} ms`,
        ...(run.hindsight ? ["reference (knows the future)"] : []),
        ...(run.beside.length ? [`here as well: ${plotText(run.beside.slice(0, 4).join(", "))}${run.beside.length > 4 ? ", …" : ""}`] : [])].join("<br>");
    return {
      type: "scatter", mode: "markers", name: policy,
      x: mine.map((run) => run.hours), y: mine.map((run) => nines.scale(run.attainment)),
      customdata: mine.map((run) => [run.place, about(run)]),
      hovertemplate: "%{customdata[1]}<extra></extra>",
      marker: { opacity: 1, size: mine.map((run) => 10 + 5 * Math.min(3, run.beneath)), symbol: mine.map((run) => symbol + (run.hindsight ? "-open" : "")), color: hue, line: { width: mine.map((run) => (run.hindsight ? 1.6 : 1)), color: mine.map((run) => (run.hindsight ? hue : c.paper)) } },
      ...(halves
        ? {
            error_x: { array: mine.map((run) => run.hours_half), thickness: 1, width: 3, color: hue },
            error_y: {
              array: mine.map((run) => nines.scale(Math.min(1, run.attainment + run.attainment_half)) - nines.scale(run.attainment)),
              arrayminus: mine.map((run) => nines.scale(run.attainment) - nines.scale(run.attainment - run.attainment_half)),
              symmetric: false, thickness: 1, width: 3, color: hue,
            },
          }
        : {}),
    };
  }

  legend(figure, policies, c) {
    const entries = policies.map((policy, i) => build("span", {}, markSign(SYMBOLS[i % SYMBOLS.length], c[HUES[i % HUES.length]]), policy));
    const step = sign("M1 9H9V2H17", { fill: "none", stroke: c.muted, "stroke-width": 1.3 });
    figure.querySelector(".legend").replaceChildren(...entries, build("span", {}, step, "Pareto front"), build("span", { class: "note" }, "* hollow: reference (knows the future)"));
  }
}

// Marks that coincide are nested, the first drawn the largest, and each tells of the others.
function nest(placed, policies, nines) {
  const hours = placed.map((run) => run.hours);
  const near = Math.max(...hours) * 0.002;
  const drawn = [...placed].sort((a, b) => policies.indexOf(a.policy) - policies.indexOf(b.policy) || a.place - b.place);
  drawn.forEach((run, i) => {
    const coincides = (other) =>
      other !== run && Math.abs(other.hours - run.hours) <= near &&
      Math.abs(nines.scale(other.attainment) - nines.scale(run.attainment)) <= 0.01;
    run.beside = placed.filter(coincides).map((other) => other.name);
    run.beneath = drawn.slice(i + 1).filter(coincides).length;
  });
}

// Names beside as many points as there is room for, those on the front first; the others tell theirs on hover.
function labels(placed, front, at, layout, width, c) {
  const { margin, height, xaxis, yaxis } = layout;
  const pixel = (value, [low, high], length) => ((value - low) / (high - low)) * length;
  const wide = width - margin.l - margin.r;
  const high = height - margin.t - margin.b;
  const spots = placed.map((run) => ({
    run, x: pixel(run.hours, xaxis.range, wide), y: pixel(at(run), yaxis.range, high),
  }));
  const taken = spots.map(({ x, y }) => [x - 6, y - 6, x + 6, y + 6]);
  const free = (box) =>
    box[0] >= 0 && box[1] >= 0 && box[2] <= wide && box[3] <= high &&
    taken.every((other) => box[2] < other[0] || box[0] > other[2] || box[3] < other[1] || box[1] > other[3]);
  const rank = ({ run }) => (front.includes(run.place) ? 0 : run.hindsight ? 1 : 2);
  const found = [];
  for (const { run, x, y } of [...spots].sort((a, b) => rank(a) - rank(b) || a.run.place - b.run.place)) {
    const text = run.name + (run.hindsight ? "*" : "");
    const long = 6 * text.length + 2;
    const places = [[-1, 0], [1, 0], [-1, 1], [1, -1], [1, 1], [-1, -1], [-1, 2], [1, -2], [1, 2], [-1, -2]];
    const fit = places
      .map(([side, up]) => ({ side, up, left: side < 0 ? x - 9 - long : x + 9, low: y + 13 * up - 6 }))
      .find(({ left, low }) => free([left, low, left + long, low + 12]));
    if (!fit) continue;
    taken.push([fit.left, fit.low, fit.left + long, fit.low + 12]);
    found.push({
      x: run.hours, y: at(run), text: plotText(text), showarrow: false, xanchor: fit.side < 0 ? "right" : "left", yanchor: "middle",
      xshift: 9 * fit.side, yshift: 13 * fit.up, bgcolor: faint(c.paper, 0.85), borderpad: 0, font: { size: 10.5, color: front.includes(run.place) ? c.ink : c.muted },
    });
  }
  return found;
}

function sortable(table) {
  const heads = [...table.querySelectorAll("thead th")];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.value;
      const words = head.dataset.key === "name";
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        // What is not defined comes last either way.
        if (x === "" || y === "") return (x === "") - (y === "");
        const order = words ? x.localeCompare(y) : Number(x) - Number(y);
        return down ? -order : order;
      });
      body.append(...rows);
    });
  });
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row && !event.target.closest("a") && !String(window.getSelection())) window.location.hash = `run-${row.dataset.run}`;
  });
}
