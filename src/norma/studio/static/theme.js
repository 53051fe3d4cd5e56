"use strict";
// Before anything is drawn: "auto" follows the system.
(() => {
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)");
  const auto = root.dataset.theme === "auto";
  const set = () => { root.dataset.theme = dark.matches ? "dark" : "light"; };
  if (auto) { set(); dark.addEventListener("change", set); }
})();
