// Draws the panels of a run; they zoom together and share a cursor: all legends show their values under it.

function panelLayout(run, panel, c) {
  const days = run.end - run.start > DAY_MS;
  const lasting = run.faults.filter((fault) => fault.until !== null);
  const named = (_, i) => ({
    x: lasting[i].t, xanchor: "left", yref: "paper", y: 1, yanchor: "top", showarrow: false, text: plotText(lasting[i].kind),
    font: { size: 10.5, color: c.muted },
  });
  const spans = lasting.map((fault) => ({
      type: "rect", layer: "below", xref: "x", yref: "paper", x0: fault.t, x1: fault.until, y0: 0, y1: 1,
      fillcolor: faint(c.grey, 0.2), line: { color: c.grey, width: 0.8, dash: "dot" },
  }));
  const base = baseLayout(c);
  return {
    ...base,
    // Room for a second line, which names the day.
    ...(days ? { height: base.height + 12, margin: { ...MARGIN, b: MARGIN.b + 12 } } : {}),
    hovermode: false,
    shapes: [...spans, ...(panel.shapes || [])],
    annotations: [...(panel.explained ? spans.map(named) : []), ...(panel.annotations || [])],
    xaxis: {
      ...axisLook(c), type: "date", range: [run.start, run.end + run.step / 2], nticks: 8,
      tickformat: days ? `%H:%M\n${run.start > 0 ? "%b %-d" : "day %-j"}` : "%H:%M",
      ticks: "outside", ticklen: 3, tickcolor: c.rule, showline: true,
      tickformatstops: [{ dtickrange: [null, 30e3], value: "%H:%M:%S" }],
    },
    yaxis: { ...axisLook(c), fixedrange: true, nticks: 5, ...panel.yaxis },
  };
}

function swatch(trace) {
  if (trace.mode === "markers") return markSign(trace.marker.symbol, trace.marker.color);
  const box = build("svg", { width: 18, height: 10, "aria-hidden": "true" });
  if (trace.area) {
    const colour = trace.fillpattern ? trace.fillpattern.bgcolor : trace.fillcolor;
    box.append(build("rect", { x: 1, y: 0.5, width: 16, height: 9, fill: colour, stroke: trace.line.color, "stroke-width": 0.8 }));
    const hatch = { "/": "M3 9L9 1M9 9L15 1", ".": "M4 3h1M9 3h1M14 3h1M6.5 7h1M11.5 7h1", x: "M3 2L8 8M8 2L3 8M10 2L15 8M15 2L10 8" };
    if (hatch[trace.area]) box.append(build("path", { d: hatch[trace.area], stroke: trace.line.color, "stroke-width": 1.4 }));
    return box;
  }
  const look = { x1: 0, x2: 18, y1: 5, y2: 5, stroke: trace.line.color, "stroke-width": Math.max(1.4, trace.line.width) };
  if (trace.line.dash) look["stroke-dasharray"] = trace.line.dash.replace(/px/g, "");
  box.append(build("line", look));
  return box;
}

// The legend: a swatch, the name, and the value under the cursor. A click hides or shows the line.
function legend(figure, plot, traces, note) {
  const place = figure.querySelector(".legend");
  place.replaceChildren();
  const values = [];
  traces.forEach((trace, i) => {
    if (!trace.x.length || trace.unlisted) return;
    const entry = build("button", { type: "button", title: "hide or show", "aria-pressed": "true" }, swatch(trace), trace.name);
    entry.addEventListener("click", () => {
      const shown = entry.getAttribute("aria-pressed") === "true";
      entry.setAttribute("aria-pressed", String(!shown));
      Plotly.restyle(plot, { visible: !shown }, [i]);
    });
    place.append(entry);
    if (!trace.readout) return;
    const value = build("output", {});
    entry.append(value);
    values.push({ value, read: (tick) => trace.readout(trace.values[tick + (trace.shift || 0)]) });
  });
  if (note) place.append(build("span", { class: "note" }, note));
  return values;
}

// Where a run is drawn. One at a time: what is left is purged, so that many runs cost nothing.
class RunView {
  constructor(section) {
    this.section = section;
    this.run = readRun(section.dataset.run);
    this.range = null;
    this.panels = [];
    this.following = false;
  }

  draw() {
    const c = colours();
    this.panels = [];
    for (const figure of this.section.querySelectorAll("figure.panel")) {
      const { panel: name, pool } = figure.dataset;
      const panel = pool ? instances(this.run, pool, c) : PANELS[name](this.run, c);
      const plot = figure.querySelector(".plot");
      if (panel.unit) figure.querySelector(".unit").textContent = panel.unit;
      const layout = panelLayout(this.run, panel, c);
      if (printing) Object.assign(layout, { autosize: false, width: plot.clientWidth });
      if (this.range) layout.xaxis.range = [...this.range];
      Plotly.newPlot(plot, panel.traces, layout, CONFIG);
      const values = legend(figure, plot, panel.traces, panel.note);
      const bubble = build("div", { class: "bubble" });
      const cursor = build("div", { class: "cursor", hidden: "" }, bubble);
      plot.append(cursor);
      this.panels.push({ plot, values, cursor, bubble, explained: panel.explained });
      plot.on("plotly_relayout", () => this.follow(plot));
      figure.dataset.points = String(panel.traces.reduce((sum, trace) => sum + known(trace.y).length, 0));
    }
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
    const over = event && event.target.closest ? event.target.closest(".plot") : null;
    const panel = over && this.panels.find((each) => each.plot === over);
    const shown = Boolean(panel) && this.run.t.length > 0;
    let left = 0;
    let tick = 0;
    if (shown) {
      const box = over.getBoundingClientRect();
      const wide = box.width - MARGIN.l - MARGIN.r;
      const [from, to] = this.range || [this.run.start, this.run.end + this.run.step / 2];
      const at = from + ((event.clientX - box.left - MARGIN.l) / wide) * (to - from);
      tick = nearest(this.run.t, at);
      left = MARGIN.l + ((this.run.t[tick] - from) / (to - from)) * wide;
    }
    for (const each of this.panels) {
      each.cursor.hidden = !shown;
      each.cursor.style.left = `${left}px`;
      each.bubble.hidden = each !== panel;
      for (const { value, read } of each.values) value.textContent = shown ? read(tick) : "";
    }
    if (!shown) return;
    const words = panel.explained ? decisionText(this.run, tick) : [];
    panel.bubble.textContent = [clock(this.run.t[tick], this.run), ...words].join("\n");
    panel.bubble.classList.toggle("leftwards", left > over.clientWidth / 2);
  }
}

function nearest(times, at) {
  let low = 0;
  let high = times.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < at) low = middle + 1;
    else high = middle;
  }
  return low > 0 && at - times[low - 1] < times[low] - at ? low - 1 : low;
}
