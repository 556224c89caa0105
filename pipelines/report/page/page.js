"use strict";
// Sorting, filtering and the panel of a cell. Without this script the page shows the same, in the sweep's order.
(() => {
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  document.documentElement.classList.add("js");

  // Sorting: a heading's button turns from best first over worst first back to the sweep's order.
  function value(row, column, text) {
    const cell = row.cells[column];
    if (text) return (cell.dataset.value ?? cell.textContent).trim();
    return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
  }

  function compare(a, b, direction, text) {
    if (a === null || b === null) return (a === null) - (b === null); // what is missing comes last, either way
    return direction * (text ? a.localeCompare(b, undefined, { numeric: true, sensitivity: "base" }) : a - b);
  }

  function sortable(table) {
    const headings = all("th[data-column]", table);
    const bodies = [...table.tBodies];
    const original = bodies.map((body) => [...body.rows]);

    function sort(heading, order) {
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      table.classList.toggle("sorted", order !== undefined);
      bodies.forEach((body, index) => body.append(...original[index]));
      if (order === undefined) return;
      heading.setAttribute("aria-sort", order);
      const column = Number(heading.dataset.column);
      const text = heading.dataset.kind === "text";
      const direction = order === "ascending" ? 1 : -1;
      const rows = original.flat().filter((row) => row.matches(".loss"));
      rows.sort((a, b) => compare(value(a, column, text), value(b, column, text), direction, text));
      bodies[0].append(...rows);
    }

    for (const heading of headings) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      const orders = ["descending", "ascending"];
      if (heading.dataset.kind === "text" || heading.dataset.best === "lowest") orders.reverse();
      button.addEventListener("click", () => {
        sort(heading, [...orders, undefined][orders.indexOf(heading.getAttribute("aria-sort")) + 1]);
      });
    }
  }

  // Filtering: data sets hide tables, losses hide rows, backbones and metrics hide columns.
  function filter() {
    const unwanted = {};
    for (const field of all("[data-filter]")) {
      unwanted[field.dataset.filter] = new Set(all("input:not(:checked)", field).map((box) => box.value));
    }
    const is = (kind, name) => !unwanted[kind]?.has(name);
    const part = document.getElementById("filter-loss").value.trim().toLowerCase();

    for (const section of all("section.data")) section.hidden = !is("data", section.dataset.data);
    for (const row of all("tr.loss")) {
      const { loss, data, backbone } = row.dataset;
      row.hidden = !loss.toLowerCase().includes(part) || !is("data", data) || !is("backbone", backbone);
    }
    for (const table of all("table.main")) {
      for (const row of all("tr.family", table)) {
        row.hidden = !all("tr.loss", row.parentElement).some((loss) => !loss.hidden);
      }
      for (const heading of all("th[data-metric]", table)) {
        heading.hidden = !is("backbone", heading.dataset.backbone) || !is("metric", heading.dataset.metric);
        for (const row of all("tbody tr.loss, tfoot tr", table)) row.cells[heading.dataset.column].hidden = heading.hidden;
      }
      for (const heading of all("th.backbone", table)) {
        const shown = all("th[data-metric]:not([hidden])", table);
        const count = shown.filter((metric) => metric.dataset.backbone === heading.dataset.backbone).length;
        heading.hidden = count === 0;
        heading.colSpan = Math.max(count, 1);
      }
    }
    document.querySelector(".nothing").hidden = all("table.main tr.loss").some((row) => !row.hidden);
  }

  // A score opens its cell in a panel; Escape, the button and a click beside it close it.
  const panel = document.getElementById("cell");
  const content = panel.querySelector(".content");

  function open(event) {
    const link = event.target.closest("a.score");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const facts = document.getElementById(link.hash.slice(1)).cloneNode(true);
    facts.removeAttribute("id");
    content.replaceChildren(facts);
    panel.setAttribute("aria-label", facts.querySelector("h3").textContent.trim());
    panel.showModal();
    panel.scrollTop = 0;
  }

  document.addEventListener("click", open);
  panel.addEventListener("click", (event) => {
    if (event.target === panel) panel.close();
  });
  panel.querySelector(".close").addEventListener("click", () => panel.close());
  all("table.sortable").forEach(sortable);
  const filters = document.querySelector(".filters");
  filters.hidden = false;
  filters.addEventListener("input", filter);
  filter(); // a browser may restore what was filtered when the page is loaded again
})();
