"use strict";
const talks = [[], []];
let halt = null;
async function answer(side, model) {
  const column = $(`column${side}`), words = make("p", { class: "writing" }), verdicts = make("div", { class: "verdict-line" });
  const box = make("div", { class: "turn assistant" }, make("span", { class: "label" }, model), words, verdicts);
  column.append(box);
  const asked = talks[side].map((m) => ({ ...m }));
  let text = "";
  try {
    const response = await ask("/api/chat", { model, messages: talks[side], rules: $("rules")?.value || "none", temperature: Number($("temperature").value), max_tokens: Number($("most").value) }, { raw: true, signal: halt.signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      rest += value;
      const lines = rest.split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const event = JSON.parse(line);
        if (event.text) { text += event.text; words.textContent = text; }
        if (event.error) throw new Error(event.error);
        if (event.verdicts) drawVerdicts(verdicts, event.verdicts);
      }
    }
  } catch (error) {
    if (error.name === "AbortError") words.append(make("i", { class: "fine" }, T(" (stopped)", "（已停止）")));
    else { words.append(make("span", { class: "bad" }, error.message)); }
  }
  words.classList.remove("writing");
  if (!text) { if (!words.textContent) words.append(make("i", { class: "fine" }, T("(empty answer)", "（空回答）"))); talks[side].push({ role: "assistant", content: text }); return; }
  talks[side].push({ role: "assistant", content: text });
  if ($("rules")) box.append(make("button", { type: "button", class: "annotate", onclick: async (event) => { try { const r = await ask("/api/annotate", { messages: asked, response: text, model }); event.target.disabled = true; event.target.textContent = T(`In the queue (${r.made})`, `已加入队列（${r.made}）`); } catch (error) { trouble(error); } } }, T("Annotate this answer", "标注此回答")));
}
function drawVerdicts(place, verdicts) {
  const shown = verdicts.filter((v) => v.status !== "not_applicable"), off = new Set(verdicts.filter((v) => v.status === "not_applicable").map((v) => v.rule));
  place.replaceChildren(...shown.map((v) => make("span", { class: `chip ${COLOURS[v.status]}`, title: v.note || VERDICTS[v.status] }, `${MARKS[v.status]} ${v.rule}`)), ...(off.size ? [make("small", {}, T(`does not apply: ${[...off].join(", ")}`, `不适用：${[...off].join("、")}`))] : []));
}
async function go(event) {
  event?.preventDefault();
  const question = $("say").value.trim();
  if (!question || halt) return;
  $("say").value = "";
  halt = new AbortController();
  $("send").hidden = true; $("halt").hidden = false;
  const models = [$("model0").value, $("model1").value].map((m, side) => [side, m]).filter(([, m]) => m);
  for (const [side] of models) { talks[side].push({ role: "user", content: question }); $(`column${side}`).append(...turns([{ role: "user", content: question }])); }
  scrollTo({ top: document.body.scrollHeight });
  await Promise.all(models.map(([side, model]) => answer(side, model)));
  halt = null;
  $("send").hidden = false; $("halt").hidden = true;
  scrollTo({ top: document.body.scrollHeight });
  $("say").focus();
}
if ($("form")) {
  $("form").addEventListener("submit", go);
  $("say").addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) go(event); });
  $("halt").addEventListener("click", () => halt?.abort());
  $("model1").addEventListener("change", () => { const on = !!$("model1").value; $("column1").hidden = !on; $("columns").classList.toggle("both", on); });
  $("new").addEventListener("click", () => { halt?.abort(); for (const side of [0, 1]) { talks[side] = []; $(`column${side}`).replaceChildren(); } $("say").focus(); });
}
