"use strict";
// What every page shares: words in both languages, requests with the session's token, elements made of text (never of HTML).
const zh = document.documentElement.dataset.lang === "zh";
const T = (english, chinese) => (zh ? chinese : english);
const $ = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((c) => c != null));
  return element;
}

class Refusal extends Error {
  constructor(status, body) { super([body.where, body.error, body.mend].filter(Boolean).join(". ")); this.status = status; }
}

async function ask(path, body, options = {}) {
  const init = { headers: { "x-csrf-token": document.querySelector("meta[name=csrf]").content }, ...options };
  if (body !== undefined) {
    init.method = "POST";
    if (!(body instanceof Blob)) { init.headers["content-type"] = "application/json"; body = JSON.stringify(body); }
    init.body = body;
  }
  const response = await fetch(path, init);
  if (response.status === 401) { location.href = "/login"; throw new Refusal(401, { error: T("Please log in", "请登录") }); }
  if (!response.ok) {
    let said;
    try { said = await response.json(); } catch { said = { error: T("The studio gave no answer", "工作室没有响应") }; }
    throw new Refusal(response.status, said);
  }
  return options.raw ? response : response.status === 204 ? null : response.json();
}

let hush;
function say(text, bad = false) {
  const place = $("said");
  place.textContent = text;
  place.className = bad ? "shown bad" : "shown";
  clearTimeout(hush);
  hush = setTimeout(() => { place.className = ""; }, bad ? 8000 : 3000);
}
const trouble = (error) => say(error.message, true);
const VERDICTS = {
  compliant: T("Keeps it", "遵守"), violation: T("Breaks it", "违反"), not_applicable: T("Does not apply", "不适用"),
  unsure: T("Unsure", "不确定"), error: T("Error", "错误"),
};
const MARKS = { compliant: "✓", violation: "✗", not_applicable: "–", unsure: "?", error: "!" };
const COLOURS = { compliant: "good", violation: "bad", not_applicable: "plain", unsure: "warn", error: "warn" };
const chip = (verdict) => make("span", { class: `chip ${COLOURS[verdict] || "plain"}` }, `${MARKS[verdict] || ""} ${VERDICTS[verdict] || verdict}`);
const PEOPLE = { annotator: T("annotator", "标注员"), reviewer: T("reviewer", "复核员"), admin: T("admin", "管理员") };
const ROLES = { user: T("User", "用户"), assistant: T("Assistant", "助手"), system: T("System", "系统"), developer: T("Developer", "开发者") };
function turns(messages) {
  return messages.map((m) => make("div", { class: `turn ${m.role}` }, make("span", { class: "label" }, ROLES[m.role] || m.role), make("p", {}, m.content)));
}

// Spans count characters as Python does (code points); strings here count UTF-16 units.
const points = (text) => Array.from(text);
function highlighted(text, spans) {
  const all = points(text), parts = [];
  let at = 0;
  for (const [start, end] of [...spans].sort((a, b) => a[0] - b[0])) {
    if (end <= at) continue;
    parts.push(all.slice(at, Math.max(at, start)).join(""), make("mark", {}, all.slice(Math.max(at, start), end).join("")));
    at = end;
  }
  parts.push(all.slice(at).join(""));
  return parts.filter((p) => p !== "");
}
function later(action, wait) {
  let timer;
  return (...values) => { clearTimeout(timer); timer = setTimeout(() => action(...values), wait); };
}
function row(cells, tag = "td") { return make("tr", {}, ...cells.map((c) => (c instanceof Node && ["TD", "TH"].includes(c.tagName) ? c : make(tag, {}, c ?? "")))); }

function remember(key, value) { document.cookie = `norma_${key}=${value}; path=/; max-age=31536000; samesite=lax`; }
$("language")?.addEventListener("click", () => { remember("lang", zh ? "en" : "zh"); const url = new URL(location.href); if (url.searchParams.has("lang")) { url.searchParams.delete("lang"); location.replace(url); } else location.reload(); });
$("theme")?.addEventListener("click", () => {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  remember("theme", root.dataset.theme);
  dispatchEvent(new Event("themechange"));
});
$("logout")?.addEventListener("click", () => ask("/api/logout", {}).then(() => { location.href = "/login"; }).catch(trouble));
document.querySelector('nav [aria-current="page"]')?.scrollIntoView({ block: "nearest", inline: "center" });

// The agreement table, on two pages.
async function agreement(place) {
  const { rows } = await ask("/api/agreement");
  if (!rows.length) { place.replaceChildren(make("p", { class: "fine" }, T("No answer has two marks yet.", "还没有两人标注的回答。"))); return; }
  const number = (v) => (v == null ? "–" : v.toFixed(2).replace("-", "−"));
  const between = (v) => (v.value == null ? "–" : `${number(v.value)} (${number(v.low)} – ${number(v.high)})`);
  const question = { applies: T("applies?", "是否适用"), kept: T("kept?", "是否遵守") };
  place.replaceChildren(make("table", { class: "words-last" }, make("thead", {}, row([T("rule", "规则"), T("language", "语言"), T("question", "问题"), T("answers", "回答数"), T("people", "人数"), T("raw", "原始一致率"), "α", "AC1", T("in words", "结论")], "th")),
    make("tbody", {}, ...rows.map((r) => row([make("code", {}, r.rule), r.language, question[r.question] || r.question, String(r.items), String(r.annotators), r.raw == null ? "–" : `${Math.round(100 * r.raw)}%`, between(r.alpha), between(r.ac1), make("small", {}, r.words)])))));
}
