"use strict";
// Data embedded in the page, colours, and numbers as people read them.

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

// A time of the run, in ms, as hours and minutes, with the day where there is more than one.
function clock(ms, end) {
  const date = new Date(ms).toISOString();
  const time = date.slice(11, 19);
  return end > DAY_MS ? `day ${Math.floor(ms / DAY_MS) + 1} ${time}` : time;
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
