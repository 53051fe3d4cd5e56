"use strict";
let pair = null, since = 0, busy = false;
async function next() {
  const found = await ask("/api/pair");
  pair = found.pair;
  $("left").textContent = found.left.toLocaleString();
  $("pair").hidden = !pair;
  $("empty").hidden = !!pair;
  if (!pair) return;
  since = performance.now();
  $("messages").replaceChildren(...turns(pair.messages));
  for (const [id, side] of [["one", "left"], ["two", "right"]]) $(id).replaceChildren(pair[side].trim() ? pair[side] : make("i", { class: "fine" }, T("(empty)", "（空）")));
}
async function choose(choice) {
  if (!pair || busy || performance.now() - since < 120) return;
  busy = true;
  try {
    await ask("/api/prefer", { pair: pair.pair, choice, seconds: Math.round((performance.now() - since) / 100) / 10 });
    $("saved").textContent = T("saved", "已保存");
    await next();
  } catch (error) { trouble(error); }
  busy = false;
}
for (const button of document.querySelectorAll("[data-choice]")) button.addEventListener("click", () => choose(button.dataset.choice));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const choice = { 1: "left", ArrowLeft: "left", 2: "right", ArrowRight: "right", 0: "tie" }[event.key];
  if (choice) { event.preventDefault(); choose(choice); }
});
next().catch(trouble);
