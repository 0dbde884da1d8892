// What custom.css must know of a cell: the heading of its column, and whether its text is long enough to wrap.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll(".bd-article table")) {
    const headings = [...table.querySelectorAll("thead th")].map((cell) => cell.textContent.trim());
    for (const row of table.querySelectorAll("tbody tr")) {
      [...row.cells].forEach((cell, index) => {
        cell.dataset.heading = headings[index] ?? "";
        cell.classList.toggle("long", cell.textContent.length > 24);
      });
    }
  }
});
