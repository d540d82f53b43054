"use strict";
// Data embedded in the page, colours, numbers as people read them, and what all pictures have alike.

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

const number = (value) =>
  value === null || value === undefined ? NOTHING : Math.abs(value) >= 100 ? whole.format(value) : digits.format(value);
const percent = (value) => (value === null || value === undefined ? NOTHING : percents.format(value));

// Plotly reads text as a little HTML and looks for %{...} in templates.
const plotText = (text) =>
  String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/%/g, "&#37;");

const DAY_MS = 86400e3;

// A time of the run, in ms, as hours and minutes, with the date where it is known, else the day where there is more than one.
function clock(ms, run) {
  const date = new Date(ms).toISOString();
  const time = date.slice(11, 19);
  if (run.start > 0) return `${date.slice(0, 10)} ${time}`;
  return run.end > DAY_MS ? `day ${Math.floor(ms / DAY_MS) + 1} ${time}` : time;
}

function build(name, attributes, ...children) {
  const made = document.createElementNS(
    ["svg", "line", "rect", "path"].includes(name) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml",
    name,
  );
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const MARGIN = { l: 52, r: 12, t: 6, b: 24 };
const HEIGHT = 158;
const FONT = "system-ui, sans-serif";
const CONFIG = { displayModeBar: false, responsive: true };

function baseLayout(c) {
  return {
    margin: MARGIN,
    height: HEIGHT,
    autosize: true,
    paper_bgcolor: c.paper,
    plot_bgcolor: c.paper,
    font: { family: FONT, size: 11, color: c.muted },
    showlegend: false,
    dragmode: "zoom",
    hoverlabel: { bgcolor: c.raised, bordercolor: c.rule, font: { family: FONT, color: c.ink, size: 11 }, align: "left", namelength: -1 },
  };
}

function axisLook(c) {
  return { gridcolor: c.grid, linecolor: c.rule, zerolinecolor: c.grid, zeroline: false, automargin: false };
}

// Marks and dashes as small pictures, for legends.
const MARKS = {
  circle: "M9 1a4 4 0 1 0 .01 0Z", square: "M5 1h8v8h-8Z", diamond: "M9 0L14 5L9 10L4 5Z", "triangle-up": "M9 1L14 9H4Z",
  "triangle-down": "M9 9L14 1H4Z", cross: "M7.5 1h3v2.5h2.5v3h-2.5v2.5h-3v-2.5h-2.5v-3h2.5Z",
  x: "M5 2L6 1L9 4L12 1L13 2L10 5L13 8L12 9L9 6L6 9L5 8L8 5Z", pentagon: "M9 0.5L13.5 4L12 9.5H6L4.5 4Z",
  star: "M9 0L10.3 3.4L14 3.6L11 6L12 9.6L9 7.5L6 9.6L7 6L4 3.6L7.7 3.4Z",
};

// A small picture for a legend: a mark, hollow where its name ends in "-open", or another path.
function sign(d, look) {
  const box = build("svg", { width: 18, height: 10, "aria-hidden": "true" });
  box.append(build("path", { d, ...look }));
  return box;
}

function markSign(symbol, colour) {
  const open = symbol.endsWith("-open");
  return sign(MARKS[symbol.replace("-open", "")], { fill: open ? "none" : colour, stroke: open ? colour : "none", "stroke-width": 1.6 });
}
