"use strict";
const table = document.querySelector("table");
const rows = [...table.tBodies[0].rows];
const data = JSON.parse(document.getElementById("recipes").textContent);
const collator = new Intl.Collator("en", { numeric: true });  // digits of any length: a seed has up to 19

function sortBy(head) {
  const rising = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", rising ? "ascending" : "descending");
  const keys = new Map(rows.map((row) => [row, row.cells[head.cellIndex].dataset.key]));
  rows.sort((a, b) => (rising ? 1 : -1) * collator.compare(keys.get(a), keys.get(b)));
  const ordered = document.createDocumentFragment();
  for (const row of rows) ordered.append(row);
  table.tBodies[0].append(ordered);
}

function filterBy(kind) {
  let shown = 0;
  for (const row of rows) {
    row.hidden = !row.dataset.kinds.split(" ").includes(kind);
    shown += row.hidden ? 0 : 1;
  }
  document.getElementById("shown").textContent = `${shown} of ${rows.length} shown`;
}

function recipeOf(id) {
  const found = data.recipes[id];
  if (found === undefined) return "This picture carries no recipe.";
  const [place, own] = found, shared = data.shared[place];
  const text = JSON.stringify({ ...shared, ...own, config: { ...shared.config, ...own.config } }, null, 2);
  return text.replace(/^( *"seed": )"(\d+)"/gm, "$1$2");
}

function open(button) {
  const row = button.closest("tr"), panel = document.getElementById("panel");
  panel.querySelector("h2").textContent = row.querySelector("bdi").textContent;
  panel.querySelector("img").src = button.querySelector("img").getAttribute("src");
  panel.querySelector("pre").textContent = recipeOf(row.id);
  panel.showModal();
}

for (const button of table.tHead.querySelectorAll("button")) button.onclick = () => sortBy(button.closest("th"));
for (const button of table.querySelectorAll(".open")) button.onclick = () => open(button);
document.getElementById("filter").onchange = (event) => filterBy(event.target.value);
document.getElementById("close").onclick = () => document.getElementById("panel").close();
document.getElementById("controls").hidden = false;
