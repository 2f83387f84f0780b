// Before the first paint: what the reader chose, or what the system says.
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js"); // what a script can show again may be folded away
  const key = "latentbench-theme";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const kept = () => { try { return localStorage.getItem(key); } catch { return null; } };
  const show = () => { root.dataset.theme = kept() ?? (dark.matches ? "dark" : "light"); };
  dark.addEventListener("change", show);
  show();
  document.addEventListener("click", event => {
    if (!event.target.closest?.("button.theme")) return;
    const next = root.dataset.theme === "dark" ? "light" : "dark";
    root.dataset.theme = next;
    try { localStorage.setItem(key, next); } catch { /* a private window keeps nothing */ }
  });
})();
