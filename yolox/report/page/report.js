"use strict";
// A click on a column's header sorts its table by it, a second one the other way round.
// Rows without a value stay at the end.
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      const up = header.getAttribute("aria-sort") !== "ascending";
      const sign = up ? 1 : -1;
      const key = (row) => row.cells[column].dataset.value;
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const x = key(a), y = key(b);
        if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
        const numbers = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
        return sign * (numbers ? x - y : x.localeCompare(y));
      });
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", up ? "ascending" : "descending");
      table.tBodies[0].append(...rows);
    });
  });
}
// Two pictures become one with a slider; without this they stand side by side, as on paper.
for (const compare of document.querySelectorAll(".compare")) {
  const label = compare.querySelector("label"), input = label.querySelector("input");
  const name = compare.querySelector("figcaption").firstChild.textContent.trim();
  const show = () => {
    compare.style.setProperty("--at", `${input.value}%`);
    input.setAttribute("aria-valuetext", `${input.value} % ${name}`);
  };
  input.addEventListener("input", show);
  show();
  label.hidden = false;
  compare.classList.add("slides");
}
// A sign where a table or a drawing goes on beyond its frame.
const signs = () => {
  for (const frame of document.querySelectorAll(".frame")) {
    const inner = frame.firstElementChild;
    const right = inner.scrollWidth - inner.clientWidth - inner.scrollLeft;
    const below = inner.scrollHeight - inner.clientHeight - inner.scrollTop;
    frame.classList.toggle("right", right > 4);
    frame.classList.toggle("below", below > 4);
  }
};
document.addEventListener("scroll", signs, {capture: true, passive: true});
document.addEventListener("toggle", signs, true);
addEventListener("resize", signs);
signs();
// A closed list is not printed: open all of them while it is.
const closed = () => document.querySelectorAll("details:not([open])");
let opened = [];
addEventListener("beforeprint", () => { opened = [...closed()]; opened.forEach((d) => { d.open = true; }); });
addEventListener("afterprint", () => opened.forEach((d) => { d.open = false; }));
