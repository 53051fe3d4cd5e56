"use strict";
const name = $("start")?.dataset.run || $("stop")?.dataset.run || document.querySelector("select[name=run]").value;
const words = { done: T("done", "完成"), stale: T("stale", "过期"), running: T("running", "进行中"), stopped: T("stopped", "已停止"), failed: T("failed", "失败"), waiting: T("waiting", "等待") };
const colours = { done: "good", failed: "bad", stale: "warn", stopped: "warn", running: "good" };
let running = $("stop") ? !$("stop").hidden : false;
const table = $("stages").tBodies[0];
function stageRow(s) {
  const line = row([make("code", {}, s.name), s.kind, make("span", { class: `chip ${colours[s.state] || "plain"}` }, words[s.state] || s.state), make("td", { class: "num" }, s.seconds == null ? "" : s.seconds.toFixed(1)), make("small", {}, s.reasons.join("; "))]);
  line.dataset.stage = s.name;
  return line;
}
async function refresh() {
  const state = await ask(`/api/run?run=${encodeURIComponent(name)}`);
  for (const s of state.stages) {
    const line = document.querySelector(`tr[data-stage="${CSS.escape(s.name)}"]`);
    if (!line) { table.append(stageRow(s)); continue; }
    const mark = line.querySelector(".chip");
    mark.className = `chip ${colours[s.state] || "plain"}`;
    mark.textContent = words[s.state] || s.state;
    line.querySelector("small").textContent = s.reasons.join("; ");
  }
  if ($("start")) { $("start").hidden = state.running; $("stop").hidden = !state.running; }
  $("logbox").hidden = !state.log;
  if ($("log").textContent !== state.log) { $("log").textContent = state.log; $("log").scrollTop = $("log").scrollHeight; }
  if (running && !state.running) location.reload();
  running = state.running;
}
const act = (what) => async (event) => { event.target.disabled = true; try { await ask(`/api/run/${what}`, { run: name }); await refresh(); } catch (error) { trouble(error); } event.target.disabled = false; };
$("start")?.addEventListener("click", act("start"));
$("stop")?.addEventListener("click", act("stop"));
// The next question waits for the last answer: how a run stands takes a second to say, and on a busy machine more.
async function watch() {
  if (!document.hidden) await refresh().catch(() => {});
  setTimeout(watch, running ? 2000 : 15000);
}
refresh().catch(trouble).then(() => setTimeout(watch, 2000));
