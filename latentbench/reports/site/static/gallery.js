"use strict";
// A gallery: which strength is shown, in which order the images stand, and one image enlarged.
(() => {
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const one = (selector, from = document) => from.querySelector(selector);
  const tools = one("form.tools"), lines = all(".line"), shots = all("figure.shot");
  const root = one("img[src*='pictures/']")?.getAttribute("src").split("pictures/")[0] ?? "";
  const given = new WeakMap();

  const of = shot => {
    if (!given.has(shot)) given.set(shot, {
      src: JSON.parse(shot.dataset.src), says: JSON.parse(shot.dataset.says),
      curve: JSON.parse(shot.dataset.curve), best: +shot.dataset.best, matched: +shot.dataset.matched,
    });
    return given.get(shot);
  };

  // ------------------------------------------------------------ strengths

  const chosen = (shot, shows, stop) => {
    const { curve, best, matched } = of(shot);
    if (shows === "matched" && matched >= 0) return matched;
    return shows === "strength" ? curve[Math.min(stop, curve.length - 1)] : best;
  };

  const show = (shows, stop = 0) => {
    for (const shot of shots) {
      const k = chosen(shot, shows, stop), { src, says } = of(shot);
      one("img", shot).src = root + src[k];
      one(".says", shot).textContent = says[k];
      shot.dataset.shown = k;
    }
    for (const button of all("[data-shows]")) button.setAttribute("aria-pressed", String(button.dataset.shows === shows));
  };

  for (const button of all("[data-shows]")) button.addEventListener("click", () => show(button.dataset.shows));
  tools.elements.strength?.addEventListener("input", event => show("strength", +event.target.value));

  // ------------------------------------------------------------ order, groups, methods

  const { figure, method, way, group } = tools.elements;

  const values = (line, k) => {
    const wanted = method.value === "" ? line : one(`[data-column="${method.value}"]`, line);
    const found = wanted ? all("[data-values]", wanted).map(s => JSON.parse(s.dataset.values)[k]) : [];
    return found.filter(value => value !== null);
  };

  const select = () => {
    for (const line of lines) line.hidden = Boolean(group.value) && line.dataset.group !== group.value;
  };

  const order = () => {
    const k = figure.value, { better } = figure.selectedOptions[0].dataset;
    const down = way.getAttribute("aria-pressed") === "true";
    for (const slot of all("[data-values]")) {
      const value = k === "" ? null : JSON.parse(slot.dataset.values)[k];
      one(".value", slot).textContent = value ?? "";
    }
    way.textContent = better ? (down ? "best first" : "worst first") : (down ? "highest first" : "lowest first");
    way.hidden = method.parentElement.hidden = k === "";
    const sign = (better === "-1" ? -1 : 1) * (down ? -1 : 1);
    const key = line => {
      if (k === "") return +line.dataset.place;
      const found = values(line, k);
      return found.length ? sign * found.reduce((a, b) => a + b) / found.length : Infinity;
    };
    const sorted = lines.map(line => [key(line), line]).sort((a, b) => a[0] - b[0]);
    lines[0]?.parentElement.append(...sorted.map(pair => pair[1]));
  };

  tools.addEventListener("submit", event => event.preventDefault());
  for (const choice of [figure, method]) choice?.addEventListener("change", order);
  group?.addEventListener("change", select);
  way?.addEventListener("click", () => {
    way.setAttribute("aria-pressed", String(way.getAttribute("aria-pressed") !== "true"));
    order();
  });
  for (const box of all("[name=shown]")) box.addEventListener("change", () => {
    for (const part of all(`[data-column="${box.value}"]`)) part.hidden = !box.checked;
  });

  // ------------------------------------------------------------ one image enlarged

  const dialog = one("dialog.zoomed"), slide = one("input", dialog);
  let open, shown; // the button, and the number of the picture, of the image that is enlarged

  const enlarged = (src, words) => {
    const box = document.createElement("figure"), image = new Image(), says = document.createElement("figcaption");
    Object.assign(image, { src, alt: words });
    says.textContent = words;
    box.append(image, says);
    return box;
  };

  const fill = () => {
    const pictures = [], line = open.closest(".line"), shot = open.closest("figure.shot");
    const image = one("img", open);
    if (shot) {
      const { src, says } = of(shot), k = shown;
      const source = one("th img", line), truth = shot.dataset.truth;
      if (source) pictures.push(enlarged(source.src, "source"));
      if (says[0] === "reconstruction" && k) pictures.push(enlarged(root + src[0], "reconstruction"));
      pictures.push(enlarged(root + src[k], says[k] || "output"));
      if (truth) pictures.push(enlarged(root + truth, "asked for"));
    } else {
      pictures.push(enlarged(image.src, image.alt));
    }
    one(".title", dialog).textContent = image.alt;
    one(".pictures", dialog).replaceChildren(...pictures);
  };

  document.addEventListener("click", event => {
    const button = event.target.closest?.("button.zoom");
    if (!button) return;
    open = button;
    const shot = button.closest("figure.shot"), slides = shot && of(shot).curve.length > 1;
    one(".slide", dialog).hidden = one(".keys", dialog).hidden = !slides;
    if (shot) {
      const { curve, best, says } = of(shot), strength = k => +says[k].split(" ")[1] || 0;
      shown = +(shot.dataset.shown ?? best);
      slide.max = curve.length - 1;
      slide.value = curve.findLastIndex(k => strength(k) <= strength(shown));
    }
    fill();
    dialog.showModal();
    if (slides) slide.focus();
  });
  slide.addEventListener("input", () => {
    shown = of(open.closest("figure.shot")).curve[slide.value];
    fill();
  });
  one(".close", dialog).addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
})();
