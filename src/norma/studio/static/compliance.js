"use strict";
let shown = null;
async function open(button) {
  shown = { method: button.dataset.method, rule: button.dataset.rule, role: button.dataset.role, start: 0, before: button.dataset.before };
  $("only").value = "";
  $("behindrows").replaceChildren();
  $("behind").showModal();
  await more();
}
async function more() {
  const query = new URLSearchParams({ method: shown.method, rule: shown.rule, role: shown.role, status: $("only").value, start: shown.start });
  const found = await ask(`/api/behind?${query}`);
  $("behindhead").textContent = `${shown.rule || T("All rules", "全部规则")} · ${shown.method} · ${found.total.toLocaleString()}`;
  $("behindrows").append(...found.rows.map((r) => make("article", { class: "behind" }, make("p", {}, chip(r.status), " ", make("code", {}, r.rule), " ", make("small", {}, r.note)), make("div", { class: "turns" }, ...turns(r.messages)), make("div", { class: "answer" }, ...(r.response ? highlighted(r.response, r.evidence) : [make("i", { class: "fine" }, T("(empty)", "（空）"))])),
    r.response ? make("button", { type: "button", onclick: async (event) => { try { await ask("/api/annotate", { messages: r.messages, response: r.response, rules: [r.rule], model: shown.method }); event.target.disabled = true; event.target.textContent = T("In the queue", "已加入队列"); } catch (error) { trouble(error); } } }, T("Annotate", "标注")) : null)));
  shown.start += found.rows.length;
  $("behindmore").hidden = shown.start >= found.total;
}
for (const button of document.querySelectorAll("button.open")) button.addEventListener("click", () => open(button).catch(trouble));
$("behindmore").addEventListener("click", () => more().catch(trouble));
$("only").addEventListener("change", () => { shown.start = 0; $("behindrows").replaceChildren(); more().catch(trouble); });
