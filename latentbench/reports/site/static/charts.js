"use strict";
// Draws the charts of a page when they come into sight. Colours are the style sheet's variables, so
// that light and dark need no drawing anew; the legend's buttons hide and show methods.
(() => {
  const library = new URL("vega.js", document.currentScript.src).href;
  const lines = { domainColor: "var(--line)", tickColor: "var(--line)", gridColor: "var(--line)" };
  const words = { labelColor: "var(--muted)", titleColor: "var(--ink)" };
  const CONFIG = {
    background: "transparent",
    font: getComputedStyle(document.body).fontFamily, // by name: Vega measures words before it draws them
    axis: { ...lines, ...words, labelFontSize: 11, titleFontSize: 12, titleFontWeight: "normal",
      tickCount: 6, labelOverlap: true, labelSeparation: 6 },
    view: { stroke: "transparent" },
    header: words,
    line: { strokeWidth: 2 },
    rule: { strokeWidth: 1.5 },
  };
  const hidden = new Set();
  let loading;

  const load = () => loading ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    Object.assign(script, { src: library, onload: done, onerror: failed });
    document.head.append(script);
  });

  const shown = data => ({ values: data.values.filter(d => !hidden.has(d.method)) });

  const draw = async (box, given) => {
    await load();
    const spec = structuredClone(given ?? JSON.parse(box.dataset.spec));
    for (const part of [spec, ...spec.layer]) if (part.data) part.data = shown(part.data);
    const options = { renderer: "svg", actions: false, config: CONFIG, loader: { target: "_self" } };
    await vegaEmbed(box, spec, options);
    box.dataset.drawn = "";
  };

  const sight = new IntersectionObserver(found => {
    for (const { isIntersecting, target } of found) {
      if (!isIntersecting) continue;
      sight.unobserve(target);
      draw(target);
    }
  }, { rootMargin: "300px" });
  for (const box of document.querySelectorAll(".chart[data-spec]")) sight.observe(box);

  document.addEventListener("click", event => {
    const button = event.target.closest?.(".legend button");
    if (!button) return;
    const { method } = button.dataset, off = !hidden.delete(method);
    if (off) hidden.add(method);
    button.setAttribute("aria-pressed", String(!off));
    for (const box of document.querySelectorAll(".chart[data-drawn][data-spec]")) draw(box);
  });

  window.latentbench = { ...window.latentbench, draw };
})();
