// Sorting: a press of a column's button; numbers by value, words as people order them.
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

function compare(a, b) {
  const [x, y] = [a.dataset.sort, b.dataset.sort];
  if (x !== undefined && y !== undefined) return Number(x) - Number(y);
  return collator.compare(a.textContent.trim(), b.textContent.trim());
}

const empty = (cell) => cell.dataset.sort === undefined && cell.textContent.trim() === "-";

function sortBy(th) {
  const table = th.closest("table");
  const column = [...th.parentNode.children].indexOf(th);
  const up = th.getAttribute("aria-sort") !== "ascending";
  for (const other of th.parentNode.children) other.setAttribute("aria-sort", "none");
  th.setAttribute("aria-sort", up ? "ascending" : "descending");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  rows.sort((one, two) => {
    const [a, b] = [one.cells[column], two.cells[column]];
    if (empty(a) !== empty(b)) return empty(a) ? 1 : -1; // what is not there stands last
    return up ? compare(a, b) : compare(b, a);
  });
  body.append(...rows);
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sortBy(button.parentNode));
}

// Filtering: rows that have every word.
for (const input of document.querySelectorAll("input[data-for]")) {
  const rows = [...document.getElementById(input.dataset.for).tBodies[0].rows];
  const count = input.parentNode.querySelector(".count");
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    count.textContent = words.length ? `${shown} of ${rows.length} rows` : `${rows.length} rows`;
  });
}

// Charts: drawn when they come into view, and anew when the reader changes from light to dark.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const [charts, themes] = [read("charts"), read("themes")];
const dark = matchMedia("(prefers-color-scheme: dark)");
const drawn = new Map();

function colored(spec) {
  const surface = getComputedStyle(document.documentElement).getPropertyValue("--surface").trim();
  // Dark words stand on every color: pale ones on light paper, full ones on dark paper.
  const values = { surface, full: dark.matches ? 1 : 0.8, pale: dark.matches ? 0.8 : 0.45 };
  const params = (spec.params ?? []).map((p) => (p.name in values ? { ...p, value: values[p.name] } : p));
  return params.length ? { ...spec, params } : spec;
}

async function embed(place, spec) {
  const config = themes[dark.matches ? "dark" : "light"];
  const result = await window.vegaEmbed(place, colored(spec), { actions: false, mode: "vega-lite", renderer: "svg", config });
  for (const svg of place.querySelectorAll("svg")) {
    svg.setAttribute("aria-hidden", "true"); // described by its place, and given as a table
    svg.removeAttribute("role");
  }
  return result;
}

async function draw(place) {
  const name = place.dataset.chart;
  const before = drawn.get(name);
  drawn.set(name, null);
  if (before) before.finalize();
  drawn.set(name, await embed(place, charts[name]));
  place.dataset.drawn = dark.matches ? "dark" : "light";
}

// On paper there is no menu: what it offers is drawn one below the other, as wide as the page.
const menu = (spec) => spec.params?.find((param) => param.bind?.options);

function drawAll(place) {
  const spec = charts[place.dataset.chart];
  for (const value of menu(spec).bind.options) {
    const params = spec.params.map((p) => (p === menu(spec) ? { name: p.name, value } : p));
    const one = document.createElement("div");
    const [heading, chart] = [document.createElement("h4"), document.createElement("div")];
    heading.textContent = value;
    one.append(heading, chart);
    place.nextElementSibling.append(one);
    embed(chart, { ...spec, params, width: PAPER - 60 });
  }
}

const places = [...document.querySelectorAll("[data-chart]")];
const seen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      draw(entry.target);
    }
  },
  { rootMargin: "600px" },
);
for (const place of places) seen.observe(place);
dark.addEventListener("change", () => {
  for (const place of places) if (drawn.get(place.dataset.chart)) draw(place);
});
const PAPER = 660; // pixels of a line on A4 and on letter
addEventListener("beforeprint", () => {
  for (const table of document.querySelectorAll("table")) {
    table.style.setProperty("--fit", Math.min(1, PAPER / table.scrollWidth)); // every column on the paper
  }
  for (const place of places) {
    if (!drawn.has(place.dataset.chart)) draw(place);
    if (menu(charts[place.dataset.chart]) && !place.nextElementSibling.hasChildNodes()) drawAll(place);
  }
  for (const details of document.querySelectorAll("details.notes")) details.open = true;
});
