"use strict";
// Sorting and filtering. The page says all it has to say without this.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => row.cells[column].dataset.value;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numbers = column > 0;
      const first = numbers ? "descending" : "ascending";
      const other = numbers ? "ascending" : "descending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      const sign = order === "ascending" ? 1 : -1;
      const compare = (a, b) =>
        numbers
          ? sign * (Number(value(a, column)) - Number(value(b, column)))
          : sign * value(a, column).localeCompare(value(b, column), "en", { numeric: true });
      for (const each of heads) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      body.append(...[...body.rows].sort(compare));
    });
  });
  const controls = document.getElementById(table.dataset.controls);
  const input = controls.querySelector("input");
  const count = controls.querySelector("output");
  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of body.rows) {
      const text = value(row, 0).toLowerCase();
      const found = words.every((word) => text.includes(word));
      row.classList.toggle("filtered", !found);
      shown += found;
    }
    count.value = `${shown} of ${body.rows.length} shown`;
  };
  input.addEventListener("input", filter);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      input.value = "";
      filter();
    }
  });
  controls.hidden = false;
  filter();
}
// On paper everything is open, also where style alone cannot do it.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const each of closed) each.open = true;
});
addEventListener("afterprint", () => {
  for (const each of closed) each.open = false;
});
