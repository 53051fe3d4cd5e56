"use strict";
let last = null;
async function conflicts() {
  const { items } = await ask("/api/conflicts");
  if (!items.length) { $("conflicts").replaceChildren(make("p", { class: "panel fine" }, T("Nobody disagrees.", "没有分歧。"))); return; }
  $("conflicts").replaceChildren(...items.map((item) => {
    const texts = item.guideline?.statement || {}, own = Object.keys(texts).find((k) => k.split("-")[0] === (zh ? "zh" : "en"));
    const settle = async (verdict) => { try { await ask("/api/mark", { task: item.task, verdict, revision: item.revision }); say(T("Settled", "已定论")); await all(); } catch (error) { trouble(error); } };
    return make("article", { class: "panel gap-below" }, make("p", {}, make("code", {}, item.rule), " ", texts[own] || ""), make("div", { class: "turns" }, ...turns(item.messages)),
      make("h3", { class: "label" }, T("Answer", "回答")), make("div", { class: "answer" }, ...highlighted(item.response, item.marks.flatMap((m) => m.spans))),
      ...item.marks.map((m) => make("p", {}, make("b", {}, m.annotator), " ", chip(m.verdict), m.rationale ? ` ${m.rationale}` : "", m.corrected ? make("span", { class: "answer inlineanswer" }, m.corrected) : null)),
      make("div", { class: "verdicts" }, ...["compliant", "violation", "not_applicable", "unsure"].map((v) => make("button", { type: "button", class: COLOURS[v], onclick: () => settle(v) }, VERDICTS[v]))));
  }));
}
async function tiles() {
  const { progress } = await ask("/api/progress");
  $("tiles").replaceChildren(...[["left", T("open", "待标注")], ["conflicts", T("conflicts", "冲突")], ["done", T("done", "完成")], ["all", T("in all", "总数")]].map(([key, word]) => make("div", {}, make("b", {}, progress[key].toLocaleString()), make("span", { class: "k" }, word))));
}
async function queue(more = false) {
  const { tasks, total } = await ask(`/api/tasks?state=${$("state").value}&after=${more ? last : -2147483648}`);
  const states = { open: T("open", "待标注"), conflict: T("conflict", "冲突"), done: T("done", "完成") };
  const rows = tasks.map((t) => row([make("small", {}, t.item), make("code", {}, t.rule), make("span", { class: "clip" }, t.response.slice(0, 90) || "–"), `${t.marks}/${t.wanted}`, make("span", { class: `chip ${{ done: "good", conflict: "bad" }[t.state] || "plain"}` }, states[t.state])]));
  if (!more) $("queue").replaceChildren(make("table", {}, make("thead", {}, row([T("item", "条目"), T("rule", "规则"), T("answer", "回答"), T("marks", "标注"), T("state", "状态")], "th")), make("tbody", {})));
  $("queue").querySelector("tbody").append(...rows);
  if (!more && !tasks.length) $("queue").replaceChildren(make("p", { class: "fine" }, T("Nothing is here.", "这里没有条目。")));
  if (tasks.length) last = tasks.at(-1).place;
  $("more").hidden = tasks.length < 50;
}
const all = () => Promise.all([conflicts(), tiles(), queue(), agreement($("agreement"))]).catch(trouble);
$("state").addEventListener("change", () => queue().catch(trouble));
$("more").addEventListener("click", () => queue(true).catch(trouble));
$("draw").addEventListener("click", () => ask("/api/fill", { count: Number($("count").value) }).then((r) => { say(T(`${r.made} new items`, `新增 ${r.made} 条`)); return all(); }).catch(trouble));
all();
setInterval(() => { if (!document.hidden) Promise.all([tiles(), agreement($("agreement"))]).catch(() => {}); }, 15000);
