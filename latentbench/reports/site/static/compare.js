"use strict";
// Two methods of a board: the test's answer in words, two charts, the images that differ most.
(() => {
  const one = selector => document.querySelector(selector);
  const { figures, methods, pictures } = JSON.parse(one("#compared").textContent);
  const form = one("form.compare"), { a, b, figure } = form.elements;
  const MOST = 20; // images in the table
  const loaded = {};

  const load = k => loaded[figures[k].name] ??= (() => {
    const promise = new Promise((done, failed) => {
      const script = document.createElement("script");
      Object.assign(script, { src: `../${figures[k].src}`, onerror: failed });
      waiting[figures[k].name] = done;
      document.head.append(script);
    });
    return promise;
  })();
  const waiting = {};
  window.latentbench.compared = (name, data) => waiting[name](data);

  const number = value => value === null || value === undefined ? "–" : String(+value.toPrecision(3));
  const signed = value => (value > 0 ? "+" : "") + number(value).replace("-", "−");

  const verdict = (data, i, j, what) => {
    if (i === j) return "Choose two methods.";
    const test = data.tests[i < j ? `${i} ${j}` : `${j} ${i}`];
    if (!test) return "These two cannot be tested against each other: they share too few images, or their sets differ.";
    const turn = i < j ? 1 : -1, ends = [test.low, test.high].map(e => e === null ? null : turn * e).sort((x, y) => x - y);
    const range = test.low === null ? "no interval" : `95% interval ${signed(ends[0])} to ${signed(ends[1])}`;
    const difference = turn * test.difference;
    const better = (difference > 0) === what.better ? methods[i].name : methods[j].name;
    const answer = test.apart ? `${better} is better` : "not told apart";
    return `${what.name}: ${answer}. ${methods[i].name} minus ${methods[j].name}: ${signed(difference)}, ${range}, p = ${number(test.p)} ` +
      `corrected for the number of pairs, ${test.n} images.`;
  };

  const axis = (field, title) => ({ field, type: "quantitative", title, scale: { zero: false } });

  const scatter = (rows, what, i, j) => {
    const values = rows.flatMap(row => [row.a, row.b]), ends = [Math.min(...values), Math.max(...values)];
    return { data: { values: rows }, width: "container", height: 300, layer: [
      { data: { values: ends.map(end => ({ a: end, b: end })) }, mark: { type: "line", strokeDash: [2, 4], strokeWidth: 1.5 },
        encoding: { x: axis("b"), y: axis("a"), color: { value: "var(--muted)" } } },
      { mark: { type: "point", filled: true, size: 45, opacity: .6 },
        encoding: { x: axis("b", methods[j].name), y: axis("a", methods[i].name), color: { value: "var(--c1)" },
          tooltip: ["id", "group", "a", "b", "gap"].map(field => ({ field })) } },
    ] };
  };

  const histogram = (rows, what) => ({ data: { values: rows }, width: "container", height: 300, layer: [
    { mark: { type: "bar", binSpacing: 1 }, encoding: {
      x: { field: "gap", type: "quantitative", bin: { maxbins: 24 }, title: `difference in ${what.title}` },
      y: { aggregate: "count", type: "quantitative", title: "images", axis: { tickMinStep: 1 } }, color: { value: "var(--c1)" } } },
    { data: { values: [{ gap: 0 }] }, mark: { type: "rule", strokeDash: [4, 3], strokeWidth: 2 },
      encoding: { x: { field: "gap", type: "quantitative" }, color: { value: "var(--ink)" } } },
  ] });

  const cell = (content, kind = "td") => {
    const made = document.createElement(kind);
    made.append(content);
    return made;
  };

  const image = (src, words) => {
    if (!src) return document.createTextNode("");
    const made = new Image();
    Object.assign(made, { loading: "lazy", src: `../${src}`, alt: words });
    return made;
  };

  const table = (rows, what, i, j) => {
    one("[data-name=a]").textContent = methods[i].name;
    one("[data-name=b]").textContent = methods[j].name;
    const most = [...rows].sort((x, y) => Math.abs(y.gap) - Math.abs(x.gap)).slice(0, MOST);
    one("table.largest tbody").replaceChildren(...most.map(row => {
      const line = document.createElement("tr"), kept = pictures[`${row.id} ${row.group}`];
      const mine = k => row.seed === row.first && kept?.shots[k];
      const both = [["a", i], ["b", j]].map(([side, k]) => {
        const made = cell(document.createTextNode(number(row[side])));
        const picture = mine(k);
        if (picture) made.prepend(image(picture, methods[k].name), document.createElement("br"));
        return made;
      });
      if (row.gap) both[(row.gap > 0) === what.better ? 0 : 1].className = "better";
      line.append(cell(`${row.id} ${row.group}`, "th"), cell(signed(row.gap)), ...both,
        cell(image(kept?.source, "source")), cell(image(kept?.truth, "asked for")));
      return line;
    }));
  };

  const show = async () => {
    const i = +a.value, j = +b.value, k = +figure.value, what = figures[k];
    history.replaceState(null, "", `#${new URLSearchParams({ a: methods[i].name, b: methods[j].name, figure: what.name })}`);
    const data = await load(k);
    if (k !== +figure.value || i !== +a.value || j !== +b.value) return; // chosen anew meanwhile
    one(".verdict").textContent = verdict(data, i, j, what);
    const [first, second] = [data.values[i], data.values[j]];
    const rows = first && second ? data.keys.map(([seed, id, group], n) => ({
      seed, id, group, first: data.keys[0][0], a: first[n], b: second[n], gap: first[n] - second[n],
    })).filter(row => row.a !== null && row.b !== null) : [];
    one(".charts").hidden = !rows.length;
    table(rows, what, i, j);
    if (!rows.length) return;
    await latentbench.draw(one("#pairs"), scatter(rows, what, i, j));
    await latentbench.draw(one("#gaps"), histogram(rows, what));
  };

  const asked = new URLSearchParams(location.hash.slice(1));
  const pick = (select, name, list, otherwise) => {
    const found = list.findIndex(entry => entry.name === asked.get(name));
    select.value = found < 0 ? otherwise : found;
  };
  pick(a, "a", methods, 0);
  pick(b, "b", methods, 1);
  pick(figure, "figure", figures, 0);
  form.addEventListener("change", show);
  form.addEventListener("submit", event => event.preventDefault());
  show();
})();
