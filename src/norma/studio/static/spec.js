"use strict";
const editor = $("text");
let good = null;
async function check() {
  $("verdict").textContent = T("checking…", "检查中…");
  if ($("save")) $("save").disabled = true;
  try {
    const text = editor.value, found = await ask("/api/spec/check", { text, base: editor.dataset.base });
    good = text;
    const errors = found.lint.filter((f) => f.severity === "error").length;
    $("verdict").textContent = found.changed ? T(`Readable; ${errors} errors, ${found.lint.length - errors} warnings`, `可读；${errors} 个错误，${found.lint.length - errors} 个警告`) : T("Says the same as before", "内容与原来相同");
    if ($("save")) $("save").disabled = text === original;
    plan(found);
  } catch (error) { good = null; $("verdict").textContent = ""; $("plan").replaceChildren(make("p", { class: "alarm" }, error.message)); }
}
const short = (value) => (value == null ? "–" : typeof value === "string" ? value : JSON.stringify(value, null, 1));
function plan(found) {
  const parts = [];
  const kinds = { added: T("added", "新增"), removed: T("removed", "删除"), renamed: T("renamed", "改名"), changed: T("changed", "更改") };
  const change = (c) => { const line = make("div", { class: "answer" }); drawDifference(line, short(c.before), short(c.after)); return make("div", { class: "change" }, make("p", {}, make("b", {}, c.facet), c.note ? make("small", {}, ` ${c.note}`) : null, ...c.stale.map((s) => make("span", { class: "chip warn" }, s))), line); };
  for (const r of found.diff.rules) parts.push(make("h3", {}, make("code", {}, r.new || r.old), " ", make("span", { class: "chip plain" }, kinds[r.kind])), ...r.changes.map(change));
  parts.push(...found.diff.spec.map(change));
  if (found.costs.length) parts.push(make("h3", {}, T("What has to be made again in this run", "本次训练中需要重做的部分")), make("div", { class: "scroll" }, make("table", {}, make("thead", {}, row([T("rule", "规则"), T("facet", "方面"), T("what", "内容"), T("where", "位置"), T("stale", "过期"), T("of", "总数"), T("why", "原因")], "th")), make("tbody", {}, ...found.costs.map((c) => row([make("code", {}, c.rule), c.facet, c.what, make("small", {}, c.store), c.stale.toLocaleString(), c.of.toLocaleString(), make("small", {}, c.why)]))))));
  const errors = found.lint.filter((f) => f.severity === "error");
  if (errors.length) parts.push(make("ul", { class: "findings" }, ...errors.map((f) => make("li", {}, make("span", { class: "chip bad" }, T("error", "错误")), " ", f.text))));
  $("plan").replaceChildren(...parts);
}
async function save() {
  if (editor.value !== good) { await check(); return; }
  if (!confirm(T("Save the spec? Marks and models that depend on what changed become stale.", "保存规范？依赖于所改内容的标注与模型将过期。"))) return;
  try { await ask("/api/spec/save", { text: editor.value, base: editor.dataset.base }); location.reload(); } catch (error) { trouble(error); }
}
const original = editor.value;
$("check").addEventListener("click", check);
$("save")?.addEventListener("click", save);
editor.addEventListener("input", () => { if ($("save")) $("save").disabled = true; });
editor.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); check(); } });
addEventListener("beforeunload", (event) => { if (editor.value !== original && editor.value !== good) event.preventDefault(); });

// The conflict map: rules on a circle, arcs between those that stand against each other.
const map = $("conflict"), edges = [...map.querySelectorAll(".edge")];
if (edges.length) {
  const names = [...new Set(edges.flatMap((e) => [e.dataset.from, e.dataset.to]))], NS = "http://www.w3.org/2000/svg";
  const width = 640, height = Math.max(150, 44 * names.length), svg = document.createElementNS(NS, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`); svg.setAttribute("role", "img"); svg.setAttribute("aria-label", T("Conflict map", "冲突图"));
  const node = (tag, attributes, text) => { const n = document.createElementNS(NS, tag); for (const [k, v] of Object.entries(attributes)) n.setAttribute(k, v); if (text) n.textContent = text; svg.append(n); return n; };
  const order = map.dataset.rules.split(" ").filter((r) => names.includes(r)), y = (rule) => 28 + order.indexOf(rule) * (height - 56) / Math.max(1, order.length - 1);
  for (const e of edges) {
    const a = y(e.dataset.from), b = y(e.dataset.to), reach = 250 + Math.abs(a - b) * 0.9;
    node("path", { class: `arc ${e.dataset.kind}`, d: `M 236 ${a} Q ${Math.min(620, reach + 60)} ${(a + b) / 2} 236 ${b}` });
    node("circle", { class: "end", cx: 236, cy: b, r: 4 });
  }
  for (const rule of order) node("text", { x: 222, y: y(rule) + 4, "text-anchor": "end" }, rule);
  map.prepend(svg);
}
