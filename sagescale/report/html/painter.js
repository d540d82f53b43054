"use strict";
// Paints figures: panels of series, as figures.py describes them. One view paints those of one section.
// Panels that share a clock zoom together and share a cursor: all legends show their values under it.

const embedded = (id) => JSON.parse(document.getElementById(id).textContent);

const PALETTE = embedded("palette");
const darkScreen = window.matchMedia("(prefers-color-scheme: dark)");
let printing = false;

const colours = () => (darkScreen.matches && !printing ? PALETTE.dark : PALETTE.light);

// "#0072B2" at an opacity.
const faint = (colour, opacity) => colour + Math.round(opacity * 255).toString(16).padStart(2, "0");

const NOTHING = "–";
const digits = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const percents = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 2 });
const missing = (value) => value === null || value === undefined;

const number = (value) => (missing(value) ? NOTHING : Math.abs(value) >= 100 ? whole.format(value) : digits.format(value));
const percent = (value) => (missing(value) ? NOTHING : percents.format(value));

// Plotly reads text as a little HTML and looks for %{...} in templates.
const plotText = (text) =>
  String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/%/g, "&#37;");

const DAY_MS = 86400e3;
const SVG = ["svg", "line", "rect", "path"];

function build(name, attributes, ...children) {
  const made = document.createElementNS(SVG.includes(name) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const nearest = (times, at) => times.reduce((best, time, i) => (Math.abs(time - at) < Math.abs(times[best] - at) ? i : best), 0);

// A figure's columns as lists. Times are of the clock, where the trace has them: all are moved by its start.
function readFigure(id) {
  const figure = embedded(id);
  const { clock } = figure;
  if (!clock) return figure;
  const { columns } = figure;
  const length = columns.t.length;
  const ticks = columns.t.map((at) => clock.start_ms + at);
  for (const [key, column] of Object.entries(columns)) {
    if (!Array.isArray(column)) columns[key] = new Array(length).fill(column);
  }
  clock.end_ms = length ? ticks[length - 1] : clock.start_ms + clock.step_ms;
  clock.range = [clock.start_ms, clock.end_ms + clock.step_ms / 2];
  // A forecast is of the window after its tick. What a decision left holds until the next one.
  Object.assign(columns, { t: ticks, next: ticks.map((at, i) => ticks[i + 1] ?? at + clock.step_ms), edges: [clock.start_ms, ...ticks, clock.range[1]] });
  return figure;
}

// The entry of a column that its readout at a tick shows, from the tick's own.
const SHIFT = { next: -1, edges: 1 };

// A series with its points as lists.
function points(series, figure) {
  const column = (of) => (typeof of === "string" ? figure.columns[of] : of);
  let x = column(series.x);
  let y = column(series.y);
  if (figure.clock && Array.isArray(series.x)) x = x.map((at) => (at === null ? null : figure.clock.start_ms + at));
  if (!Array.isArray(y)) y = x.map(() => y);
  if (series.x === "edges") {
    if (y.length < x.length - 1) y = [series.first ?? null, ...y];
    y = [...y, y[y.length - 1]];
  }
  if (series.at) [x, y] = [x, y].map((values) => series.at.map((i) => values[i]));
  return { ...series, x, y, shift: SHIFT[series.x] || 0 };
}

// A value with unknown ones on both sides would be no line: it becomes a short dash.
function dashed(x, y) {
  const alone = (i) => !missing(y[i]) && missing(y[i - 1]) && missing(y[i + 1]);
  if (!y.some((_, i) => alone(i))) return { x, y };
  const half = (x.length > 1 ? x[1] - x[0] : 60e3) / 4;
  const ends = x.map((at, i) => (alone(i) ? [at - half, at + half] : [at]));
  return { x: ends.flat(), y: ends.flatMap((each, i) => each.map(() => y[i])) };
}

const FILLS = { zero: ["tozeroy", 0.18], previous: ["tonexty", 0.2], stack: [undefined, 0.45] };

// What plotly draws of a series.
function trace(series, panel, figure, c) {
  const hue = c[series.colour || "ink"];
  const colour = faint(hue, series.opacity ?? 1);
  const made = { type: "scatter", name: plotText(series.name), x: series.x, y: series.y };
  if (!figure.clock) Object.assign(made, pointing(series, panel));
  if (series.mark) {
    const outlines = [series.outline || "paper"].flat().map((name) => c[name]);
    const line = { width: series.edge || 0, color: outlines.length > 1 ? outlines : outlines[0] };
    const error = { thickness: 1, width: 3, color: hue };
    return {
      ...made, mode: "markers",
      marker: { symbol: series.mark, size: series.size || 7, color: colour, opacity: 1, line },
      ...(series.error_x ? { error_x: { ...error, array: series.error_x } } : {}),
      ...(series.error_y ? { error_y: { ...error, symmetric: false, array: series.error_y[0], arrayminus: series.error_y[1] } } : {}),
    };
  }
  const { fill, pattern } = series;
  if (figure.clock && fill !== "stack") Object.assign(made, dashed(series.x, series.y));
  Object.assign(made, {
    mode: "lines", line: { color: colour, width: series.width ?? 1.6, dash: series.dash || "solid", shape: series.steps ? "hv" : "linear" },
  });
  if (!fill) return made;
  const [toward, opacity] = FILLS[fill];
  made.fillcolor = faint(c[series.fill_colour || series.colour || "ink"], opacity);
  if (toward) made.fill = toward;
  else made.stackgroup = "stack";
  if (pattern) made.fillpattern = { shape: pattern, fgcolor: hue, bgcolor: faint(hue, 0.18), size: 5, solidity: 0.35 };
  return made;
}

// What is shown while a point is pointed at.
function pointing(series, panel) {
  if (series.silent) return { hoverinfo: "skip" };
  const name = [...new Set([series.group || series.name, series.name])].join(", ");
  const lines = (i) => (series.texts ? series.texts[i] : [name, `${panel.x.title} ${number(series.x[i])}`, `${panel.y.title} ${number(series.y[i])}`]);
  const words = series.x.map((_, i) => lines(i).map((line, k) => (k ? plotText(line) : `<b>${plotText(line)}</b>`)).join("<br>"));
  return { customdata: words.map((text, i) => [text, series.links?.[i]]), hovertemplate: "%{customdata[0]}<extra></extra>" };
}

const MARGIN = { l: 52, r: 12, t: 6, b: 24 };
const WIDE_MARGIN = { l: 60, r: 16, t: 8, b: 38 };
const CONFIG = { displayModeBar: false, responsive: true };

function axisLayout(axis, c) {
  const { title, range, log, zero, format, step, ticks, inside } = axis;
  return {
    gridcolor: c.grid, linecolor: c.rule, zerolinecolor: c.grid, zeroline: false, automargin: false,
    ...(title ? { title: { text: plotText(title), standoff: 6, font: { size: 11 } } } : {}),
    ...(log ? { type: "log", ...(ticks ? {} : { dtick: 1 }) } : {}),
    ...(range ? { range: log ? range.map(Math.log10) : [...range] } : {}),
    ...(zero ? { rangemode: "tozero" } : {}),
    ...(format ? { tickformat: format } : {}),
    ...(step ? { dtick: step } : {}),
    ...(ticks ? { tickvals: ticks.map((tick) => tick[0]), ticktext: ticks.map((tick) => plotText(tick[1])) } : {}),
    ...(axis.grid === false ? { showgrid: false } : {}),
    ...(inside ? { ticklabelposition: "inside top" } : {}),
  };
}

// A line across at a value, with its words at one end.
function level({ value, words, colour, axis, dash, below }, panel, c) {
  const upright = axis === "x";
  const at = (upright ? panel.x : panel.y).log ? Math.log10(value) : value;
  const line = { color: c[colour || "vermillion"], width: 1.3, dash: dash || "6px,3px" };
  const shape = upright ? { x0: value, x1: value, yref: "paper", y0: 0, y1: 1 } : { xref: "paper", x0: 0, x1: 1, y0: value, y1: value };
  const place = upright
    ? { x: at, xanchor: "left", xshift: 3, yref: "paper", y: 0, yanchor: "bottom" }
    : { xref: "paper", x: 1, xanchor: "right", y: at, yanchor: below ? "top" : "bottom", yshift: below ? 1 : -1 };
  return { shape: { type: "line", ...shape, line }, note: { ...place, showarrow: false, text: plotText(words), font: { size: 10.5, color: line.color } } };
}

function panelLayout(panel, figure, c) {
  const { clock } = figure;
  const levels = (panel.levels || []).map((each) => level(each, panel, c));
  const layout = {
    margin: { ...(clock ? MARGIN : WIDE_MARGIN) }, height: figure.height || 158, autosize: true, paper_bgcolor: c.paper, plot_bgcolor: c.paper,
    font: { family: "system-ui, sans-serif", size: 11, color: c.muted }, showlegend: false, dragmode: "zoom", hovermode: clock ? false : "closest",
    hoverlabel: { bgcolor: c.raised, bordercolor: c.rule, font: { family: "system-ui, sans-serif", color: c.ink, size: 11 }, align: "left", namelength: -1 },
    shapes: levels.map((each) => each.shape),
    annotations: levels.map((each) => each.note),
    xaxis: { ...axisLayout(panel.x, c), ticks: "outside", ticklen: 3, tickcolor: c.rule, showline: true },
    yaxis: { ...(clock ? { fixedrange: true, nticks: 5 } : {}), ...axisLayout(panel.y, c) },
  };
  if (clock) clockLayout(layout, panel, clock, c);
  return layout;
}

function clockLayout(layout, panel, clock, c) {
  const days = clock.end_ms - clock.start_ms > DAY_MS;
  // Room for a second line, which names the day.
  if (days) Object.assign(layout, { height: layout.height + 12, margin: { ...MARGIN, b: MARGIN.b + 12 } });
  Object.assign(layout.xaxis, {
    type: "date", range: [...clock.range], nticks: 8, tickformat: days ? `%H:%M\n${clock.start_ms > 0 ? "%b %-d" : "day %-j"}` : "%H:%M",
    tickformatstops: [{ dtickrange: [null, 30e3], value: "%H:%M:%S" }],
  });
  for (const span of clock.spans || []) {
    const [x0, x1] = [clock.start_ms + span.begin_ms, clock.start_ms + span.end_ms];
    layout.shapes.unshift({
      type: "rect", layer: "below", xref: "x", yref: "paper", x0, x1, y0: 0, y1: 1, fillcolor: faint(c.grey, 0.2), line: { color: c.grey, width: 0.8, dash: "dot" },
    });
    if (!panel.explained) continue;
    layout.annotations.push({
      x: x0, xanchor: "left", yref: "paper", y: 1, yanchor: "top", showarrow: false, text: plotText(span.words), font: { size: 10.5, color: c.muted },
    });
  }
}

// Labels beside as many points as there is room for, in their order; the others are told on pointing at them.
function labelNotes(panel, layout, width, c) {
  const { margin, height } = layout;
  const wide = width - margin.l - margin.r;
  const high = height - margin.t - margin.b;
  const pixel = (value, [from, to], length) => ((value - from) / (to - from)) * length;
  const spots = (panel.labels || []).map((label) => ({ label, x: pixel(label.x, panel.x.range, wide), y: pixel(label.y, panel.y.range, high) }));
  const taken = spots.map(({ x, y }) => [x - 6, y - 6, x + 6, y + 6]);
  const free = (box) =>
    box[0] >= 0 && box[1] >= 0 && box[2] <= wide && box[3] <= high &&
    taken.every((other) => box[2] < other[0] || box[0] > other[2] || box[3] < other[1] || box[1] > other[3]);
  const places = [[-1, 0], [1, 0], [-1, 1], [1, -1], [1, 1], [-1, -1], [-1, 2], [1, -2], [1, 2], [-1, -2]];
  const found = [];
  for (const { label, x, y } of spots) {
    const long = 6 * label.text.length + 2;
    const fit = places
      .map(([side, up]) => ({ side, up, left: side < 0 ? x - 9 - long : x + 9, low: y + 13 * up - 6 }))
      .find(({ left, low }) => free([left, low, left + long, low + 12]));
    if (!fit) continue;
    taken.push([fit.left, fit.low, fit.left + long, fit.low + 12]);
    found.push({
      name: label.group, x: label.x, y: label.y, text: plotText(label.text), showarrow: false, xanchor: fit.side < 0 ? "right" : "left", yanchor: "middle",
      xshift: 9 * fit.side, yshift: 13 * fit.up, bgcolor: faint(c.paper, 0.85), borderpad: 0, font: { size: 10.5, color: label.strong ? c.ink : c.muted },
    });
  }
  return found;
}

// Marks and hatches as small pictures, for legends.
const MARKS = {
  circle: "M9 1a4 4 0 1 0 .01 0Z", square: "M5 1h8v8h-8Z", diamond: "M9 0L14 5L9 10L4 5Z", "triangle-up": "M9 1L14 9H4Z",
  "triangle-down": "M9 9L14 1H4Z", cross: "M7.5 1h3v2.5h2.5v3h-2.5v2.5h-3v-2.5h-2.5v-3h2.5Z",
  x: "M5 2L6 1L9 4L12 1L13 2L10 5L13 8L12 9L9 6L6 9L5 8L8 5Z", pentagon: "M9 0.5L13.5 4L12 9.5H6L4.5 4Z",
  star: "M9 0L10.3 3.4L14 3.6L11 6L12 9.6L9 7.5L6 9.6L7 6L4 3.6L7.7 3.4Z",
};
const HATCHES = { "/": "M3 9L9 1M9 9L15 1", ".": "M4 3h1M9 3h1M14 3h1M6.5 7h1M11.5 7h1", x: "M3 2L8 8M8 2L3 8M10 2L15 8M15 2L10 8" };

function swatch(series, drawn) {
  const box = build("svg", { width: 18, height: 10, "aria-hidden": "true" });
  if (series.mark) {
    const { color } = drawn.marker;
    const open = String(series.mark).endsWith("-open") && !Array.isArray(series.mark);
    const symbol = [series.mark].flat()[0].replace("-open", "");
    box.append(build("path", { d: MARKS[symbol], fill: open ? "none" : color, stroke: open ? color : "none", "stroke-width": 1.6 }));
    return box;
  }
  const { color, width, dash } = drawn.line;
  if (series.fill === "stack" || series.fill === "previous") {
    const fill = drawn.fillpattern ? drawn.fillpattern.bgcolor : drawn.fillcolor;
    box.append(build("rect", { x: 1, y: 0.5, width: 16, height: 9, fill, stroke: color, "stroke-width": 0.8 }));
    if (series.pattern) box.append(build("path", { d: HATCHES[series.pattern], stroke: color, "stroke-width": 1.4 }));
    return box;
  }
  const look = { x1: 0, x2: 18, y1: 5, y2: 5, stroke: color, "stroke-width": Math.max(1.4, width) };
  if (dash !== "solid") look["stroke-dasharray"] = dash.replace(/px/g, "");
  box.append(build("line", look));
  return box;
}

// The legend: a swatch, the name, and the value under the cursor. A click hides or shows what has the name.
function legend(place, plot, panel, drawn, linked) {
  place.replaceChildren();
  const values = [];
  const groups = new Set();
  panel.series.forEach((series, i) => {
    if (!series.x.length || series.listed === false || groups.has(series.group)) return;
    if (series.group) groups.add(series.group);
    const same = panel.series.map((_, k) => k).filter((k) => k === i || (series.group && panel.series[k].group === series.group));
    const entry = build("button", { type: "button", title: "hide or show", "aria-pressed": "true" }, swatch(series, drawn[i]), series.name);
    entry.addEventListener("click", () => {
      const visible = entry.getAttribute("aria-pressed") !== "true";
      entry.setAttribute("aria-pressed", String(visible));
      const notes = plot.layout.annotations.map((note) => (note.name && note.name === series.group ? { ...note, visible } : note));
      Plotly.update(plot, { visible }, { annotations: notes }, same);
    });
    place.append(entry);
    if (!linked || series.mark) return;
    const value = build("output", {});
    entry.append(value);
    values.push({ value, read: (tick) => (series.percent ? percent : number)(series.y[tick + series.shift]) });
  });
  if (panel.note) place.append(build("span", { class: "note" }, panel.note));
  return values;
}

// Where a figure is painted. One at a time: what is left is purged, so that many runs cost nothing.
class View {
  constructor(section) {
    this.section = section;
    this.figure = readFigure(section.dataset.figure);
    this.range = null;
    this.panels = [];
    this.following = false;
  }

  draw() {
    const c = colours();
    const { clock } = this.figure;
    const places = this.section.querySelectorAll("figure.panel");
    this.panels = this.figure.panels.map((described, i) => {
      const panel = { ...described, x: described.x || {}, y: described.y || {}, series: described.series.map((each) => points(each, this.figure)) };
      const place = places[i];
      const plot = place.querySelector(".plot");
      const layout = panelLayout(panel, this.figure, c);
      layout.annotations.push(...labelNotes(panel, layout, plot.clientWidth, c));
      if (printing) Object.assign(layout, { autosize: false, width: plot.clientWidth });
      if (this.range) layout.xaxis.range = [...this.range];
      const drawn = panel.series.map((series) => trace(series, panel, this.figure, c));
      Plotly.newPlot(plot, drawn, layout, CONFIG);
      const values = legend(place.querySelector(".legend"), plot, panel, drawn, Boolean(clock));
      place.dataset.points = String(panel.series.reduce((sum, each, k) => sum + (each.silent ? 0 : drawn[k].y.filter((y) => y !== null).length), 0));
      const bubble = build("div", { class: "bubble" });
      const cursor = build("div", { class: "cursor", hidden: "" }, bubble);
      plot.append(cursor);
      if (clock) plot.on("plotly_relayout", () => this.follow(plot));
      plot.on("plotly_click", (event) => {
        const link = event.points[0].customdata?.[1];
        if (link) window.location.hash = link;
      });
      return { plot, values, cursor, bubble, explained: panel.explained };
    });
    if (!clock) return;
    this.section.onmousemove = (event) => this.point(event);
    this.section.onmouseleave = () => this.point(null);
  }

  purge() {
    this.point(null);
    for (const { plot, cursor } of this.panels) {
      Plotly.purge(plot);
      cursor.remove();
    }
    this.panels = [];
  }

  // One panel was zoomed: so are the others.
  follow(plot) {
    if (this.following) return;
    const ends = plot.layout.xaxis.range.map((end) =>
      typeof end === "number" ? end : Date.parse(`${String(end).replace(" ", "T")}${String(end).length > 10 ? "Z" : ""}`),
    );
    if (this.range && ends[0] === this.range[0] && ends[1] === this.range[1]) return;
    this.range = ends;
    this.following = true;
    const others = this.panels.filter((panel) => panel.plot !== plot);
    Promise.all(others.map((panel) => Plotly.relayout(panel.plot, { "xaxis.range": [...ends] }))).finally(() => {
      this.following = false;
    });
  }

  point(event) {
    const { clock, columns } = this.figure;
    const over = event && event.target.closest ? event.target.closest(".plot") : null;
    const panel = over && this.panels.find((each) => each.plot === over);
    const shown = Boolean(panel) && columns.t.length > 0;
    let left = 0;
    let tick = 0;
    if (shown) {
      const box = over.getBoundingClientRect();
      const wide = box.width - MARGIN.l - MARGIN.r;
      const [from, to] = this.range || clock.range;
      tick = nearest(columns.t, from + ((event.clientX - box.left - MARGIN.l) / wide) * (to - from));
      left = MARGIN.l + ((columns.t[tick] - from) / (to - from)) * wide;
    }
    for (const each of this.panels) {
      each.cursor.hidden = !shown;
      each.cursor.style.left = `${left}px`;
      each.bubble.hidden = each !== panel;
      for (const { value, read } of each.values) value.textContent = shown ? read(tick) : "";
    }
    if (!shown) return;
    panel.bubble.textContent = [this.time(columns.t[tick]), ...(panel.explained ? this.told(tick) : [])].join("\n");
    panel.bubble.classList.toggle("leftwards", left > over.clientWidth / 2);
  }

  // Hours and minutes, with the date where it is known, else the day where there is more than one.
  time(ms) {
    const date = new Date(ms).toISOString();
    const time = date.slice(11, 19);
    const { start_ms: start, end_ms: end } = this.figure.clock;
    if (start > 0) return `${date.slice(0, 10)} ${time}`;
    return end > DAY_MS ? `day ${Math.floor(ms / DAY_MS) + 1} ${time}` : time;
  }

  // What there is to say of a tick: lines are words and names of columns in turn.
  told(tick) {
    const { clock, columns } = this.figure;
    const filled = (line) => line.map((part, i) => (i % 2 === 0 ? part : part && number(columns[part][tick]))).join("");
    const events = (clock.events || []).filter((event) => event.tick === tick);
    const when = ({ time_ms: at }) => (at === undefined ? "" : this.time(clock.start_ms + at));
    return [...clock.texts[clock.text_at[tick]].map(filled), ...events.map((event) => `${event.before}${when(event)}${event.after || ""}`)];
  }
}
