// Which section is shown, and drawing it again when colours or the medium change.

const sections = [...document.querySelectorAll("main > section")];
const views = new Map();
let shown = null;

function show() {
  const wanted = /^#run-\d+$/.test(window.location.hash) ? window.location.hash.slice(1) : "";
  const section = sections.find((each) => each.id === wanted) || sections[0];
  if (!section || section === shown) return;
  if (shown) views.get(shown).purge();
  for (const each of sections) each.hidden = each !== section;
  if (!views.has(section)) views.set(section, section.id === "comparison" ? new ComparisonView(section) : new RunView(section));
  const back = shown && shown.id !== "comparison";
  shown = section;
  views.get(section).draw();
  document.documentElement.dataset.shown = section.id;
  if (section.id !== "comparison" || back) window.scrollTo(0, 0);
}

function redraw() {
  if (!shown) return;
  views.get(shown).purge();
  views.get(shown).draw();
}

darkScreen.addEventListener("change", redraw);
window.addEventListener("hashchange", show);
window.addEventListener("beforeprint", () => {
  printing = true;
  document.body.classList.add("printing");
  redraw();
});
window.addEventListener("afterprint", () => {
  printing = false;
  document.body.classList.remove("printing");
  redraw();
});
show();
