"use strict";
// Language: #zh, #en or ?lang=zh|en, else what was chosen before, else the browser's. Theme: ?theme=dark|light or #dark, else the system's.
const root = document.documentElement;
const query = new URLSearchParams(location.search);
const hash = location.hash.slice(1).split(",");
const memory = {
  get(key) { try { return localStorage.getItem("norma." + key); } catch { return null; } },
  set(key, value) { try { localStorage.setItem("norma." + key, value); } catch { /* private window */ } },
};
const first = (wanted, known) => wanted.find((value) => known.includes(value));

function setLanguage(language) {
  root.dataset.lang = language;
  root.lang = language === "zh" ? "zh-Hans" : "en";
  document.title = root.dataset[language === "zh" ? "titleZh" : "titleEn"];
  for (const option of document.querySelectorAll("option[data-en]")) option.textContent = option.dataset[language];
  for (const button of document.querySelectorAll("[data-say-en]")) button.setAttribute("aria-label", button.dataset[language === "zh" ? "sayZh" : "sayEn"]);
}
setLanguage(first([query.get("lang"), ...hash, memory.get("lang"), (navigator.language || "en").slice(0, 2)], ["en", "zh"]) || "en");
const dark = matchMedia("(prefers-color-scheme: dark)");
const chosen = first([query.get("theme"), ...hash, memory.get("theme")], ["dark", "light"]);
root.dataset.theme = chosen || (dark.matches ? "dark" : "light");
if (!chosen) dark.addEventListener("change", (event) => { root.dataset.theme = event.matches ? "dark" : "light"; });

document.getElementById("language").addEventListener("click", () => {
  setLanguage(root.dataset.lang === "zh" ? "en" : "zh");
  memory.set("lang", root.dataset.lang);
});
document.getElementById("theme").addEventListener("click", () => {
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  memory.set("theme", root.dataset.theme);
});
