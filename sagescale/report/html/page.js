// Which section is shown, drawing it again when colours or the medium change, and sorting the table of runs.

const sections = [...document.querySelectorAll("main > section")];
const views = new Map();
let shown = null;

function show() {
  const wanted = /^#run-\d+$/.test(window.location.hash) ? window.location.hash.slice(1) : "";
  const section = sections.find((each) => each.id === wanted) || sections[0];
  if (!section || section === shown) return;
  if (shown) views.get(shown).purge();
  for (const each of sections) each.hidden = each !== section;
  if (!views.has(section)) views.set(section, new View(section));
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

function print(starts) {
  printing = starts;
  document.body.classList.toggle("printing", starts);
  redraw();
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

darkScreen.addEventListener("change", redraw);
window.addEventListener("hashchange", show);
window.addEventListener("beforeprint", () => print(true));
window.addEventListener("afterprint", () => print(false));
for (const table of document.querySelectorAll("#ranking")) sortable(table);
show();
