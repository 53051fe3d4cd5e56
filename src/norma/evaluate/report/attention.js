// Inside an example: its tokens, shaded by attention from the token that is chosen, by rollout, or by what the answer hangs on.
const both = (en, zh) => {
  const made = document.createDocumentFragment();
  for (const [language, text] of [["en", en], ["zh", zh]]) {
    const part = document.createElement("span");
    part.className = language;
    part.textContent = text;
    made.append(part);
  }
  return made;
};
// Attention rollout (Abnar and Zuidema, 2005.00928): the product over layers of the heads' mean, half of it the token itself.
function rollout(look) {
  const T = look.tokens.length;
  let flow = Array.from({ length: T }, (_, i) => Float64Array.from({ length: T }, (_, j) => +(i === j)));
  for (let layer = 0; layer < look.layers; layer++) {
    flow = flow.map((_, i) => {
      const row = Float64Array.from(flow[i], (x) => x / 2);
      for (let k = 0; k < T; k++) {
        const weight = mean(look, layer, i, k) / 2;
        for (let j = 0; j < T; j++) row[j] += weight * flow[k][j];
      }
      return row;
    });
  }
  return flow;
}
function weight(look, layer, head, from, to) {
  const T = look.tokens.length;
  return look.bytes[((layer * look.heads + head) * T + from) * T + to] / 255;
}
function mean(look, layer, from, to) {
  let sum = 0;
  for (let head = 0; head < look.heads; head++) sum += weight(look, layer, head, from, to);
  return sum / look.heads;
}
function values(look, how, layer, head, from) {
  if (how === "saliency") return look.saliency;
  if (how === "rollout") return [...(look.flow ||= rollout(look))[from]];
  return look.tokens.map((_, to) => (head < 0 ? mean(look, layer, from, to) : weight(look, layer, head, from, to)));
}
function select(label, options, value) {
  const frame = document.createElement("label"), made = document.createElement("select");
  for (const [key, en, zh] of options) {
    const option = document.createElement("option");
    option.value = key;
    option.dataset.en = en;
    option.dataset.zh = zh;
    option.textContent = root.dataset.lang === "zh" ? zh : en;
    made.append(option);
  }
  made.value = value;
  frame.append(both(...label), " ", made);
  return [frame, made];
}
function inside(card) {
  const look = JSON.parse(card.dataset.look);
  look.bytes = Uint8Array.from(atob(look.weights), (c) => c.charCodeAt(0));
  const panel = document.createElement("div"), bar = document.createElement("div"), line = document.createElement("p");
  const numbers = (n) => Array.from({ length: n }, (_, i) => [i, String(i + 1), String(i + 1)]);
  const [a, how] = select(["show", "显示"], [["attention", "attention", "注意力"], ["rollout", "attention rollout", "注意力展开"], ["saliency", "input × gradient", "输入 × 梯度"]], "attention");
  const [b, layer] = select(["layer", "层"], numbers(look.layers), look.layers - 1);
  const [c, head] = select(["head", "头"], [[-1, "mean", "平均"], ...numbers(look.heads)], -1);
  let from = look.first;
  const tokens = look.tokens.map((text, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "token";
    button.textContent = text.trim() || "␣";
    button.addEventListener("click", () => { from = i; draw(); });
    return button;
  });
  function draw() {
    const found = values(look, how.value, +layer.value, +head.value, from);
    const most = Math.max(...found.map(Math.abs), 1e-9);
    b.hidden = c.hidden = how.value !== "attention";
    tokens.forEach((token, i) => {
      token.style.setProperty("--c", found[i] < 0 ? "var(--bad)" : how.value === "saliency" ? "var(--good)" : "var(--m1)");
      token.style.setProperty("--s", (Math.abs(found[i]) / most).toFixed(3));
      token.classList.toggle("from", i === from && how.value !== "saliency");
      token.title = found[i].toFixed(3);
    });
  }
  for (const control of [how, layer, head]) control.addEventListener("input", draw);
  bar.className = "filters";
  bar.append(a, b, c);
  line.append(...tokens);
  const note = document.createElement("small");
  note.append(both("Click a token: what it looks at is shaded, the most the darkest. Input × gradient: for (green) and against (red) what the model said.", "点击词元：它所关注的词元着色，越深关注越多。输入 × 梯度：支持（绿）与反对（红）模型的回答。"));
  panel.append(bar, line, note);
  draw();
  return panel;
}
for (const card of document.querySelectorAll("[data-look]")) {
  const button = card.querySelector(".inside");
  let panel = null;
  button.addEventListener("click", () => {
    if (!panel) card.append((panel = inside(card)));
    else panel.hidden = !panel.hidden;
    button.setAttribute("aria-expanded", String(!panel.hidden));
  });
}
