// Examples: three filters and a limit, so that the page stays short until the reader asks.
const cards = [...document.querySelectorAll(".ex")];
const filters = [...document.querySelectorAll(".filters select")];
const more = document.getElementById("more");
const count = document.getElementById("count");
let limit = 6;
function showExamples() {
  const matching = cards.filter((card) => filters.every((filter) => !filter.value || card.dataset[filter.name] === filter.value));
  const shown = new Set(matching.slice(0, limit));
  for (const card of cards) card.hidden = !shown.has(card);
  more.hidden = matching.length <= limit;
  count.textContent = Math.min(limit, matching.length) + " / " + matching.length;
}
if (cards.length) {
  for (const filter of filters) filter.addEventListener("change", () => { limit = 6; showExamples(); });
  more.addEventListener("click", () => { limit += 12; showExamples(); });
  showExamples();
}

// The items behind a number. A mark is one letter a question: k kept, v violation, n not applicable, u unsure, e error.
const items = JSON.parse(document.getElementById("items").textContent);
const drawer = document.getElementById("drawer");
const words = {
  k: ["kept", "守规", "good"], v: ["broken", "违规", "bad"], u: ["undecided", "未判定", "plain"], e: ["error", "错误", "plain"],
  n: ["not applicable", "不适用", "plain"], better: ["became better", "变好", "good"], worse: ["became worse", "变差", "bad"], same: ["the same", "不变", "plain"],
};
const spoken = () => (root.dataset.lang === "zh" ? 1 : 0);
const element = (tag, name, text) => { const made = document.createElement(tag); if (name) made.className = name; if (text !== undefined) made.textContent = text; return made; };
const marksOf = (method, role) => items.marks.filter((row) => row.method === method && row.role === role);

// One letter a question. Over all rules: broken when one is broken, else undecided when one is, else kept.
function letters(method, role, rule) {
  const rows = marksOf(method, role).filter((row) => !rule || row.rule === rule);
  return items.questions.map((_, i) => ["v", "e", "u", "k", "n"].find((letter) => rows.some((row) => row.marks[i] === letter)) || ".");
}

function groupsBehind(wanted) {
  const after = letters(wanted.method, wanted.role, wanted.rule);
  if (wanted.before === undefined) {
    return ["v", "u", "e", "k", "n"].map((key) => [key, after.flatMap((letter, i) => (letter === key ? [i] : []))]);
  }
  const before = letters(wanted.before, wanted.role, wanted.rule);
  const both = after.map((letter, i) => ("kv".includes(letter) && "kv".includes(before[i]) ? (letter === before[i] ? "same" : letter === "k" ? "better" : "worse") : ""));
  return ["worse", "better", "same"].map((key) => [key, both.flatMap((found, i) => (found === key ? [i] : []))]);
}

function marked(text, spans) {
  const made = element("p", "a");
  let at = 0;
  const letters = [...text]; // spans count characters, not UTF-16 units
  for (const [start, end] of spans) {
    made.append(letters.slice(at, start).join(""), element("mark", "", letters.slice(start, end).join("")));
    at = end;
  }
  made.append(letters.slice(at).join(""));
  return made;
}

function card(i, wanted) {
  const question = items.questions[i], made = element("article", "ex");
  const meta = element("div", "meta");
  const tell = (method, role) => marksOf(method, role).filter((row) => row.marks[i] !== "." && row.marks[i] !== "n" && (!wanted.rule || row.rule === wanted.rule));
  for (const row of tell(wanted.method, wanted.role)) {
    const [, , tone] = words[row.marks[i]];
    meta.append(element("span", "chip " + tone, wanted.rule ? words[row.marks[i]][spoken()] : row.rule));
  }
  meta.append(element("code", "", question.item));
  made.append(meta);
  const asked = element("div", "q", question.text);
  asked.lang = question.language;
  asked.tabIndex = 0;
  made.append(asked);
  const said = (method) => (items.answers.find((row) => row.method === method) || { texts: [] }).texts[i];
  const told = tell(wanted.method, wanted.role).flatMap((row) => row.told.filter((entry) => entry[0] === i));
  const text = said(wanted.method);
  made.append(text == null ? element("p", "a", "") : marked(text, wanted.rule && told.length ? told[0][2] : []));
  const notes = told.map((entry) => entry[1]).filter(Boolean);
  const other = wanted.role === "report" ? "heldout" : "report";
  if (wanted.rule) for (const row of tell(wanted.method, other)) notes.push((other === "heldout" ? ["held-out checker: ", "留出检查器："] : ["checker: ", "检查器："])[spoken()] + words[row.marks[i]][spoken()]);
  if (notes.length) made.append(element("p", "why", notes.join(" · ")));
  if (wanted.before !== undefined && said(wanted.before) != null) {
    const was = element("p", "was");
    was.append(element("small", "", items.names[wanted.before][spoken() ? "zh" : "en"] + ": "), said(wanted.before));
    made.append(was);
  }
  return made;
}

let opened = null; // {wanted, key, limit}
function showDrawer() {
  const { wanted } = opened, groups = groupsBehind(wanted), language = spoken() ? "zh" : "en";
  const name = (method) => items.names[method][language];
  document.getElementById("drawer-title").textContent = (wanted.before === undefined ? "" : name(wanted.before) + " → ") + name(wanted.method) + " · " + (wanted.rule || ["overall", "总体"][spoken()]);
  const texts = items.statements[wanted.rule] || {};
  const tag = Object.keys(texts).find((key) => key.split("-")[0] === language) || Object.keys(texts)[0];
  document.getElementById("drawer-rule").textContent = tag ? texts[tag] : "";
  document.getElementById("drawer-trace").textContent = "norma trace RUN " + wanted.method + "/" + (wanted.rule || "overall") + (wanted.role === "report" ? "" : "@" + wanted.role) + "/rate";
  if (opened.key === null) opened.key = (groups.find(([, list]) => list.length) || groups[0])[0];
  const tabs = document.getElementById("drawer-tabs");
  tabs.replaceChildren(...groups.filter(([, list]) => list.length).map(([key, list]) => {
    const tab = element("button", "", words[key][spoken()] + " " + list.length);
    tab.type = "button";
    tab.setAttribute("aria-pressed", String(key === opened.key));
    tab.addEventListener("click", () => { opened.key = key; opened.limit = 12; showDrawer(); });
    return tab;
  }));
  const list = groups.find(([key]) => key === opened.key)[1];
  document.getElementById("drawer-list").replaceChildren(...list.slice(0, opened.limit).map((i) => card(i, wanted)));
  document.getElementById("drawer-more").hidden = list.length <= opened.limit;
}
for (const button of document.querySelectorAll("button.open")) {
  button.addEventListener("click", () => {
    opened = { wanted: { role: button.dataset.role, rule: button.dataset.rule, method: button.dataset.method, before: button.dataset.before }, key: null, limit: 12 };
    showDrawer();
    drawer.showModal();
    drawer.scrollTop = 0;
  });
}
document.getElementById("drawer-more").addEventListener("click", () => { opened.limit += 24; showDrawer(); });
document.getElementById("drawer-close").addEventListener("click", () => drawer.close());
drawer.addEventListener("click", (event) => { if (event.target === drawer) drawer.close(); });
document.getElementById("language").addEventListener("click", () => { if (opened) showDrawer(); });
