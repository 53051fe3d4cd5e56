"use strict";
// Three items are in the browser; a key acts at once. A mark waits in local storage until the studio's receipt has come.
const state = { items: [], item: null, spans: [], since: 0, sent: 0, cursor: null, progress: null, loading: false };
const OUT = `norma.outbox.${document.querySelector(".who")?.textContent || ""}.${location.host}`;
const outbox = () => { try { return JSON.parse(localStorage.getItem(OUT)) || []; } catch { return []; } };
const keep = (marks) => { try { localStorage.setItem(OUT, JSON.stringify(marks)); } catch { /* a private window: the mark is in memory only */ } };

async function load() {
  if (state.loading) return;
  state.loading = true;
  try {
    const held = [state.item, ...state.items].filter(Boolean).map((i) => i.task).concat(outbox().map((m) => m.task));
    const rule = $("rule")?.value || "";
    const found = await ask(`/api/next?held=${held.slice(0, 9).join(",")}&rule=${encodeURIComponent(rule)}`);
    state.items.push(...found.items.filter((i) => !held.includes(i.task)));
    counts(found.progress);
  } catch (error) { trouble(error); }
  state.loading = false;
  if (!state.item) show(state.items.shift());
}

function counts(progress) {
  if (!progress) return;
  state.progress = progress;
  $("left").textContent = progress.left.toLocaleString();
  $("today").textContent = progress.today.toLocaleString();
  $("pace").textContent = progress.pace == null ? "–" : progress.pace.toLocaleString();
  $("meter").style.width = `${progress.all ? (100 * progress.done) / progress.all : 0}%`;
  $("again").hidden = !progress.skipped;
}

function show(item) {
  state.item = item || null;
  $("desk").hidden = !item;
  $("empty").hidden = !!item;
  closeEditor();
  $("note").hidden = true;
  $("rationale").value = "";
  if (!item) { nothing(); return; }
  state.spans = (item.before?.spans || []).map((s) => [...s]);
  state.since = performance.now();
  $("messages").replaceChildren(...turns(item.messages));
  drawAnswer();
  $("hint").textContent = item.before ? T(`Taken back: ${VERDICTS[item.before.verdict]}`, `已撤销：${VERDICTS[item.before.verdict]}`) : "";
  if (item.before?.rationale) { $("rationale").value = item.before.rationale; $("note").hidden = false; }
  if (item.before?.corrected) { openEditor(item.before.corrected); }
  drawGuide(item);
  drawOthers(item);
  scrollTo({ top: 0 });
  document.activeElement?.blur?.();
}

function nothing() {
  const p = state.progress || { all: 0, skipped: 0 };
  $("emptyhead").textContent = p.all ? T("All done", "全部完成") : T("Nothing to annotate yet", "暂无待标注内容");
  $("emptytext").textContent = p.all
    ? p.skipped ? T(`You passed over ${p.skipped}.`, `您跳过了 ${p.skipped} 条。`) : T("Every item has been seen by as many people as it needs, or waits for somebody else.", "每条都已有足够的人标注，或正等待他人标注。")
    : T("Draw answers of this run, import some, or send one from the chat.", "可从本次训练抽取回答、导入文件，或从对话中送入。");
}

function drawAnswer() {
  const item = state.item, place = $("answer");
  place.replaceChildren(...highlighted(item.response, state.spans));
  if (!item.response.trim()) place.replaceChildren(make("i", { class: "fine" }, item.response ? T("(only white space)", "（只有空白）") : T("(empty)", "（空）")));
  $("spans").replaceChildren(...state.spans.map((span, n) => make("button", { type: "button", "aria-label": T("Remove this highlight", "移除此标记"), onclick: () => { state.spans.splice(n, 1); drawAnswer(); } }, `${points(item.response).slice(...span).join("").slice(0, 40)} ×`)));
}

function drawGuide(item) {
  const g = item.guideline;
  $("rulename").textContent = item.rule;
  if (!g) { $("statement").textContent = item.rule; $("level").textContent = ""; $("examples").replaceChildren(); return; }
  const texts = g.statement, own = Object.keys(texts).find((k) => k.split("-")[0] === (zh ? "zh" : "en"));
  $("statement").textContent = texts[own] || Object.values(texts)[0];
  $("level").textContent = g.must ? T("A must", "必须遵守") : T("A guideline", "准则");
  const language = (item.language || "").split("-")[0];
  const sorted = [...g.examples].sort((a, b) => (b.lang.startsWith(language) ? 1 : 0) - (a.lang.startsWith(language) ? 1 : 0)).slice(0, 2);
  $("examples").replaceChildren(...sorted.map((e) => make("div", { class: "example" }, make("p", { class: "asked" }, e.question),
    ...e.good.slice(0, 2).map((x) => make("p", { class: "good" }, make("b", {}, "✓ "), x)), ...e.bad.slice(0, 2).map((x) => make("p", { class: "bad" }, make("b", {}, "✗ "), x)))));
  if (g.hash !== item.rule_hash) $("examples").prepend(make("p", { class: "alarm" }, T("The rule has changed since this item was drawn.", "此条目抽取后规则已更改。")));
}

function drawOthers(item) {
  $("others").hidden = !item.marks;
  if (item.marks) $("others").replaceChildren(make("h3", { class: "label" }, T("They disagree: settle it", "意见不一，请定论")), ...item.marks.map((m) => make("p", {}, make("b", {}, m.annotator), " ", chip(m.verdict), " ", m.rationale || "")));
}

function submit(verdict) {
  const item = state.item;
  if (!item || performance.now() - state.since < 120) return; // a key that was held down marks one item, not ten
  const corrected = $("editor").hidden ? null : $("corrected").value;
  const mark = { task: item.task, verdict, spans: state.spans, corrected: corrected && corrected !== item.response ? corrected : null, rationale: $("rationale").value, seconds: Math.min(86400, Math.round((performance.now() - state.since) / 100) / 10), revision: item.revision };
  keep([...outbox(), mark]);
  flash(verdict);
  send();
  show(state.items.shift());
  if (state.items.length < 2) load();
}

function flash(verdict) {
  const button = document.querySelector(`[data-verdict="${verdict}"]`);
  button.classList.add("pressed");
  setTimeout(() => button.classList.remove("pressed"), 180);
}

let sending = false;
async function send() {
  if (sending) return;
  sending = true;
  while (outbox().length) {
    const [mark] = outbox();
    $("saved").textContent = T("saving…", "保存中…");
    try {
      const receipt = await ask("/api/mark", mark);
      keep(outbox().slice(1));
      state.sent++;
      counts(receipt.progress);
      $("saved").textContent = outbox().length ? T("saving…", "保存中…") : T("saved", "已保存");
    } catch (error) {
      if (error instanceof Refusal && error.status < 500 && error.status !== 429) { keep(outbox().slice(1)); trouble(error); continue; }
      $("saved").textContent = T(`${outbox().length} not saved yet: no connection`, `${outbox().length} 条尚未保存：连接中断`);
      await new Promise((done) => setTimeout(done, 1500));
    }
  }
  sending = false;
}

async function undo() {
  while (sending) await new Promise((done) => setTimeout(done, 50));
  try {
    const { item, progress } = await ask("/api/undo", {});
    counts(progress);
    if (!item) { say(T("There is nothing to undo", "没有可撤销的标注")); return; }
    if (state.item) state.items.unshift(state.item);
    state.items = state.items.filter((i) => i.task !== item.task);
    show(item);
  } catch (error) { trouble(error); }
}

async function skip() {
  const item = state.item;
  if (!item) return;
  show(state.items.shift());
  try { counts((await ask(`/api/skip/${item.task}`, {})).progress); } catch (error) { trouble(error); }
  if (state.items.length < 2) load();
}

// ── highlighting ──
function selected() {
  const chosen = getSelection(), place = $("answer");
  if (!chosen.rangeCount || chosen.isCollapsed || !place.contains(chosen.anchorNode) || !place.contains(chosen.focusNode)) return null;
  const range = chosen.getRangeAt(0), before = range.cloneRange();
  before.selectNodeContents(place);
  before.setEnd(range.startContainer, range.startOffset);
  const start = points(before.toString()).length, end = start + points(range.toString()).length;
  return end > start ? [start, end] : null;
}
function highlight() {
  const span = selected();
  if (span) { state.spans.push(span); getSelection().removeAllRanges(); drawAnswer(); return; }
  const words = wordSpans();
  if (!words.length) return;
  state.cursor = { words, from: 0, to: 0 };
  drawCursor();
  say(T("← → choose a word, Shift extends, Enter adds, Esc leaves", "← → 选词，Shift 扩展，Enter 添加，Esc 退出"));
}
function wordSpans() {
  const found = [];
  let at = 0;
  for (const piece of state.item.response.match(/[\p{Script=Han}]|[^\s\p{Script=Han}]+|\s+/gu) || []) { const n = points(piece).length; if (piece.trim()) found.push([at, at + n]); at += n; }
  return found;
}
function drawCursor() {
  const { words, from, to } = state.cursor;
  $("answer").replaceChildren(...highlighted(state.item.response, [...state.spans, [words[Math.min(from, to)][0], words[Math.max(from, to)][1]]]));
}
function cursorKey(event) {
  const c = state.cursor;
  if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
    c.to = Math.max(0, Math.min(c.words.length - 1, c.to + (event.key === "ArrowRight" ? 1 : -1)));
    if (!event.shiftKey) c.from = c.to;
    drawCursor();
  } else if (event.key === "Enter") { state.spans.push([c.words[Math.min(c.from, c.to)][0], c.words[Math.max(c.from, c.to)][1]]); state.cursor = null; drawAnswer(); }
  else if (event.key === "Escape") { state.cursor = null; drawAnswer(); } else return false;
  event.preventDefault();
  return true;
}

// ── correcting ──
function openEditor(text) {
  if (!state.item) return;
  $("editor").hidden = false;
  $("corrected").value = text ?? state.item.response;
  changed();
  $("corrected").focus();
}
function closeEditor() { $("editor").hidden = true; }
function changed() {
  drawDifference($("difference"), state.item.response, $("corrected").value);
  checkers();
}
const checkers = later(async () => {
  const item = state.item, text = $("corrected").value;
  if (!item || $("editor").hidden) return;
  try {
    const found = await ask("/api/check", { task: item.task, text });
    if (state.item !== item || $("corrected").value !== text) return;
    $("checks").replaceChildren(...found.rules.map((r) => make("li", {}, chip(r.after || "unsure"), " ", make("code", {}, r.rule), r.before !== r.after ? make("small", {}, ` ${T("was", "原为")} ${MARKS[r.before] || "–"}`) : null, r.note ? make("small", {}, ` ${r.note}`) : null)));
    if (found.worse?.length) $("checks").append(make("li", { class: "bad" }, T("Worse than before: the correction will not be used for training.", "比原来更差：该修改不会用于训练。")));
  } catch (error) { trouble(error); }
}, 250);

document.addEventListener("keydown", (event) => {
  if ($("help").open) return;
  if (event.target.id === "corrected" || event.target.id === "rationale") {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); submit("violation"); }
    if (event.key === "Escape") { event.target.blur(); if (event.target.id === "corrected") closeEditor(); }
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.matches("input,select,textarea")) return;
  if (state.cursor && cursorKey(event)) return;
  const verdict = { 1: "compliant", 2: "violation", 3: "not_applicable", 4: "unsure" }[event.key];
  const act = { e: () => openEditor(), h: highlight, n: () => { $("note").hidden = false; $("rationale").focus(); }, u: undo, s: skip, "?": () => $("help").showModal() }[event.key.toLowerCase()];
  if (verdict || act) event.preventDefault();
  if (verdict) submit(verdict);
  else act?.();
});
for (const button of document.querySelectorAll("[data-verdict]")) button.addEventListener("click", () => submit(button.dataset.verdict));
$("edit").addEventListener("click", () => openEditor());
$("mark").addEventListener("click", highlight);
$("mark").addEventListener("pointerdown", (event) => event.preventDefault()); // the selection stays
$("why").addEventListener("click", () => { $("note").hidden = false; $("rationale").focus(); });
$("undo").addEventListener("click", undo);
$("undo2").addEventListener("click", undo);
$("skip").addEventListener("click", skip);
$("send").addEventListener("click", () => submit("violation"));
$("close").addEventListener("click", closeEditor);
$("corrected").addEventListener("input", changed);
$("keys").addEventListener("click", () => $("help").showModal());
$("rule")?.addEventListener("change", () => { state.items = []; state.item = null; load(); });
$("again").addEventListener("click", () => ask("/api/unskip", {}).then(load).catch(trouble));
$("draw")?.addEventListener("click", (event) => { event.target.disabled = true; ask("/api/fill", { count: 100 }).then((r) => { say(T(`${r.made} new items`, `新增 ${r.made} 条`)); return load(); }).catch(trouble).finally(() => { event.target.disabled = false; }); });
$("import")?.addEventListener("change", (event) => { const [file] = event.target.files; if (file) ask("/api/items", file).then((r) => { say(T(`${r.made} new items`, `新增 ${r.made} 条`)); return load(); }).catch(trouble); event.target.value = ""; });
$("agree").addEventListener("toggle", () => { if ($("agree").open) agreement($("agreement")).catch(trouble); });
addEventListener("beforeunload", (event) => { if (sending && outbox().length) event.preventDefault(); });
send();
load();
