"use strict";
// Every table: sorted by a click on a head, saved as CSV by the button below it.
for (const table of document.querySelectorAll("table.data")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const values = (cell) => JSON.parse(cell.dataset.values);
  const isNumber = (text) => text.trim() !== "" && !Number.isNaN(Number(text));

  // Numbers as numbers, texts as a reader orders them, what is missing last in either direction.
  const compare = (a, b, direction) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    if (isNumber(a) && isNumber(b)) return direction * (Number(a) < Number(b) ? -1 : Number(a) > Number(b) ? 1 : 0);
    return direction * a.localeCompare(b, undefined, { numeric: true });
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    if (!button.textContent) return;
    head.append(button);
    button.addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const keyed = [...body.rows].filter((row) => row.cells[column]).map((row) => [values(row.cells[column])[0], row]);
      keyed.sort(([a], [b]) => compare(a, b, ascending ? 1 : -1));
      body.append(...keyed.map(([, row]) => row));
    });
  });

  // A spreadsheet takes what begins like this for a formula.
  const inert = (text) => (/^\s*[=+\-@]/.test(text) && !isNumber(text) ? "'" + text : text);
  const field = (text) => (/[",\r\n]/.test(text) ? '"' + inert(text).replaceAll('"', '""') + '"' : inert(text));
  const csv = () =>
    [
      heads.flatMap((head) => JSON.parse(head.dataset.csv)),
      ...[...body.rows].filter((row) => row.className !== "empty").map((row) => [...row.cells].flatMap(values)),
    ]
      .map((line) => line.map(field).join(",") + "\r\n")
      .join("");
  const save = document.createElement("button");
  save.type = "button";
  save.textContent = "Save as CSV";
  save.addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv;charset=utf-8" }));
    link.download = table.id + ".csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href));
  });
  const bar = document.createElement("div");
  bar.className = "bar";
  bar.append(save);
  const scroll = table.parentElement;
  scroll.after(bar);
  const tell = () => scroll.classList.toggle("scrolls", scroll.scrollWidth > scroll.clientWidth);
  addEventListener("resize", tell);
  tell();
}
