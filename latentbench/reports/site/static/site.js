// Sorts and filters tables, and shows words on hover, on focus and on a tap.
"use strict";
(() => {
  const bare = { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null };
  const made = new Map(); // table -> its DataTable

  // ---------------------------------------------------------------- tables of figures

  function make(table) {
    if (made.has(table)) return made.get(table);
    const shown = new DataTable(table, {
      paging: false, autoWidth: false, order: [], layout: bare,
      columnDefs: [{ targets: "_all", orderSequence: ["asc", "desc", ""] }],
    });
    made.set(table, shown);
    return shown;
  }

  const figures = [...document.querySelectorAll("table.figures")];
  const idle = window.requestIdleCallback ?? setTimeout; // a large table takes a while: the page is shown first
  const seen = new IntersectionObserver(entries => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      idle(() => make(target));
    }
  }, { rootMargin: "300px" });
  figures.forEach(table => seen.observe(table));

  // buttons that show what is folded away: columns, or rows
  document.addEventListener("click", event => {
    const button = event.target.closest?.("button.all, button.rows");
    if (!button) return;
    const table = button.closest("section").querySelector("table.figures");
    const all = table.classList.toggle(button.matches(".all") ? "all" : "whole");
    button.setAttribute("aria-pressed", all);
    button.textContent = all ? button.dataset.fewer : button.dataset.more;
  });

  // ---------------------------------------------------------------- filters

  const form = document.querySelector("form.filters");
  if (form) {
    const fits = row => {
      const wanted = new FormData(form), has = key => {
        const word = wanted.get(key);
        return !word || (row.dataset[key] ?? "").split(" ").includes(word);
      };
      const model = wanted.get("model");
      const words = `${row.cells[0].textContent} ${row.dataset.model} ${row.dataset.spaces} ${row.dataset.needs}`;
      return (!model || row.dataset.model === model) && has("spaces") && has("needs") &&
        wanted.get("text").toLowerCase().split(/\s+/).every(word => words.toLowerCase().includes(word));
    };
    DataTable.ext.search.push((settings, data, index) => fits(settings.aoData[index].nTr));
    const apply = () => {
      let shown = 0, all = 0;
      for (const table of figures) {
        const rows = make(table).draw().rows({ search: "applied" }).count();
        table.closest("section").hidden = rows === 0;
        shown += rows;
        all += made.get(table).rows().count();
      }
      form.querySelector("output").textContent = shown === all ? "" : `${shown} of ${all} rows`;
    };
    let waiting;
    form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(apply, 120); });
    form.addEventListener("submit", event => event.preventDefault());
    if ([...new FormData(form).values()].some(Boolean)) apply(); // a browser that came back to the page
  }

  // ---------------------------------------------------------------- images of a cell

  for (const table of document.querySelectorAll("table.samples")) {
    const details = table.closest("details");
    const fill = () => {
      if (!details.open || made.has(table)) return;
      const { columns, rows } = JSON.parse(details.querySelector("script").textContent);
      const text = DataTable.render.text(); // ids and groups are words of users
      made.set(table, new DataTable(table, {
        data: rows, deferRender: true, autoWidth: false, order: [], pageLength: 25,
        columns: columns.map(title => ({ title, render: text })),
        columnDefs: [{ targets: "_all", className: "number" }],
        layout: { topStart: "search", topEnd: null, bottomStart: "info", bottomEnd: "paging" },
      }));
    };
    details.addEventListener("toggle", fill);
    fill(); // opened before this script ran
  }

  // ---------------------------------------------------------------- words on hover

  const tip = document.createElement("div");
  tip.id = "tip";
  tip.role = "tooltip";
  tip.hidden = true;
  document.body.append(tip);
  const show = target => {
    const words = target?.closest?.("[data-tip]");
    tip.hidden = !words?.dataset.tip;
    if (tip.hidden) return;
    tip.textContent = words.dataset.tip;
    const place = words.getBoundingClientRect(), size = tip.getBoundingClientRect();
    const below = place.bottom + 6 + size.height < innerHeight;
    tip.style.top = `${below ? place.bottom + 6 : Math.max(6, place.top - size.height - 6)}px`;
    tip.style.left = `${Math.max(8, Math.min(place.left, innerWidth - size.width - 8))}px`;
  };
  for (const kind of ["mouseover", "focusin", "click"]) document.addEventListener(kind, e => show(e.target));
  document.addEventListener("focusout", () => { tip.hidden = true; });
  document.addEventListener("keydown", event => { if (event.key === "Escape") tip.hidden = true; });
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  // ---------------------------------------------------------------- commands

  document.addEventListener("click", async event => {
    const button = event.target.closest?.(".command button");
    if (!button) return;
    const text = button.parentElement.querySelector("pre");
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "copied";
    } catch { // pages from files may not write to the clipboard
      getSelection().selectAllChildren(text);
      button.textContent = "selected";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
})();
