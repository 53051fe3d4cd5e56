"use strict";
const look = (picture, more = {}) => ask(`/api/look/${picture}`, { model: $("model").value, text: $("text").value, target: $("target").value, ...more });
const see = { about: null, attention: null, at: null, experts: null, shape: null, asked: 0 };
const STACKS = { encoder: T("encoder", "编码器"), decoder: T("decoder", "解码器"), cross: T("cross: decoder → encoder", "交叉：解码器 → 编码器") };
const percent = (p) => (p >= 0.9995 ? "100%" : p >= 0.1 ? `${(100 * p).toFixed(1)}%` : p >= 0.001 ? `${(100 * p).toFixed(2)}%` : p >= 1e-5 ? `${(100 * p).toFixed(3)}%` : "< 0.001%");

function fail(place, error) { if (error instanceof Refusal) $(place).replaceChildren(make("p", { class: "fine" }, error.message)); else throw error; }

function bars(place, rows, take = append) {
  const most = Math.max(...rows.map((r) => r.p), 1e-9);
  $(place).replaceChildren(...rows.map((r) => { const bar = make("i", {}); bar.style.width = `${(100 * r.p) / most}%`; return make("button", { type: "button", class: "bar-row", title: `#${r.id}`, disabled: r.special || r.part, onclick: () => take(r.text) }, make("code", {}, shownToken(r.text)), make("span", { class: "bar-track" }, bar), make("span", { class: "num" }, percent(r.p))); }));
}
async function write() { busy(); $("target").value = (await look("write")).text; refresh(); }
function fill(n, text) { const parts = $("text").value.split("___"); $("text").value = parts.slice(0, n + 1).join("___") + text.trim() + parts.slice(n + 1).join("___"); refresh(); }
function append(text) { const box = $("targetbox").hidden ? $("text") : $("target"); box.value += text; refresh(); }

function tokens(list, place = "tokens") {
  $(place).replaceChildren(...list.map((t) => { const box = make("span", { class: t.special ? "token special" : "token", title: t.p == null ? `#${t.id}` : `#${t.id} · p = ${percent(t.p)}` }, shownToken(t.text)); if (t.p != null) box.style.setProperty("--share", `${Math.round(55 * Math.sqrt(t.p))}%`); return box; }));
}

async function next() {
  if (see.about.kind === "encoder") { $("s-next").hidden = true; return; }
  $("s-next").hidden = false;
  try {
    const found = await look("next", { temperature: Number($("temperature").value) });
    tokens(found.source || found.tokens);
    $("written").replaceChildren();
    if (found.source) tokens(found.tokens, "written");
    bars("next", found.next);
    $("entropy").textContent = T(`Entropy ${found.entropy.toFixed(2)} bits: as uncertain as between ${(2 ** found.entropy).toFixed(1)} equal choices`, `熵 ${found.entropy.toFixed(2)} 比特：相当于在 ${(2 ** found.entropy).toFixed(1)} 个同等可能的选项间选择`);
  } catch (error) { fail("next", error); }
}

async function masked() {
  $("s-masked").hidden = !see.about.masked;
  if (!see.about.masked) return;
  try {
    const found = await look("masked");
    tokens(found.tokens);
    $("masked").replaceChildren(...found.places.map((p, n) => make("div", { class: "bars", id: `mask${n}`, role: "group", "aria-label": T(`Blank ${n + 1}`, `第 ${n + 1} 处`) })));
    found.places.forEach((p, n) => bars(`mask${n}`, p.top, (word) => fill(n, word)));
  } catch (error) { fail("masked", error); }
}

async function attention() {
  try {
    see.attention = await look("attention", { stack: $("stack").value, layer: Number($("layer").value) });
    if (see.about.kind === "encoder" && !see.about.masked) tokens(see.attention.rows);
    $("map").hidden = false;
    see.at = null;
    drawMap();
    drawHeads();
    $("reading").textContent = "";
  } catch (error) { $("map").hidden = true; fail("heads", error); }
}
function drawMap() {
  if (!see.attention) return;
  const weights = see.attention.weights[Number($("head").value)] || see.attention.weights[0];
  matrix($("map"), weights, { rows: see.attention.rows.map((w) => w.text), columns: see.attention.columns.map((w) => w.text), at: see.at });
  if (see.at) {
    const [r, c] = see.at;
    $("reading").textContent = `${shownToken(see.attention.rows[r].text)} → ${shownToken(see.attention.columns[c].text)}: ${percent(weights[r][c])}`;
  }
}
function drawHeads() {
  $("heads").replaceChildren(...see.attention.weights.map((w, h) => {
    const canvas = make("canvas", { width: w[0].length, height: w.length, role: "img", "aria-label": T(`Head ${h}`, `第 ${h} 头`) }), pen = canvas.getContext("2d");
    const card = ink("--card"), full = ink("--m1");
    w.forEach((row, r) => row.forEach((v, c) => { pen.fillStyle = mix(card, full, v ** 0.6); pen.fillRect(c, r, 1, 1); }));
    return make("button", { type: "button", class: Number($("head").value) === h ? "on" : "", "aria-pressed": String(Number($("head").value) === h), onclick: () => { $("head").value = h; drawMap(); drawHeads(); } }, canvas, make("small", {}, String(h)));
  }));
}
$("map")?.addEventListener("pointermove", (event) => { const cell = $("map").cellAt?.(event); if (cell) { see.at = cell; drawMap(); } });
$("map")?.addEventListener("keydown", (event) => {
  const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!move || !see.attention) return;
  event.preventDefault();
  const [r, c] = see.at || [0, -1], R = see.attention.rows.length, C = see.attention.columns.length;
  see.at = [Math.max(0, Math.min(R - 1, r + move[0])), Math.max(0, Math.min(C - 1, c + move[1]))];
  drawMap();
});

async function lens() {
  try {
    const found = await look("lens");
    const head = row(["", ...found.tokens.map((t) => make("th", {}, make("code", {}, shownToken(t.text))))], "th");
    const body = found.rows.map((cells, layer) => row([make("th", {}, layer ? T(`layer ${layer - 1}`, `第 ${layer - 1} 层`) : T("embedding", "词嵌入")), ...cells.map((t) => { const cell = make("td", { title: `${shownToken(t.text)} · ${percent(t.p)}` }, make("code", {}, clipped(t.text, 10))); cell.style.setProperty("--share", `${Math.round(55 * t.p)}%`); return cell; })]));
    $("lens").replaceChildren(make("table", { class: "lens" }, make("thead", {}, head), make("tbody", {}, ...body.reverse())));
  } catch (error) { fail("lens", error); }
}

async function experts() {
  $("s-experts").hidden = !see.about.experts;
  if (!see.about.experts) return;
  see.experts = await look("experts");
  const old = $("expertlayer").value;
  $("expertlayer").replaceChildren(...see.experts.layers.map((l, i) => make("option", { value: i, selected: String(i) === old }, see.about.kind === "encoder-decoder" ? l.layer.replace(/^\w+/, (s) => STACKS[s]).replace(".", " ") : l.layer.replace(/^\w+\./, ""))));
  drawExperts();
}
function drawExperts(at = null) {
  const l = see.experts.layers[Number($("expertlayer").value)] || see.experts.layers[0];
  if (!l) return;
  matrix($("expertmap"), l.probabilities, { rows: l.tokens.map((w) => w.text), columns: l.probabilities[0].map((_, e) => `E${e}`), framed: l.chosen.flatMap((es, t) => es.map((e) => [t, e])), colour: "--m2", at, most: 64 });
  if (at) $("expertreading").textContent = `${shownToken(l.tokens[at[0]].text)} → E${at[1]}: ${percent(l.probabilities[at[0]][at[1]])}`;
}
$("expertmap")?.addEventListener("pointermove", (event) => { const cell = $("expertmap").cellAt?.(event); if (cell) drawExperts(cell); });
$("expertlayer")?.addEventListener("change", () => drawExperts());

async function shape() {
  see.shape = await look("shape");
  drawShape();
}
function drawShape(at = null) {
  const names = { causal: T("causal", "因果"), bidirectional: T("both ways", "双向"), prefix: T("prefix", "前缀"), window: T("window", "窗口"), documents: T("packed documents", "拼接文档") };
  $("masks").replaceChildren(...see.shape.masks.map((m) => {
    const canvas = make("canvas", { role: "img", "aria-label": names[m.kind], width: 112, height: 112 }), pen = canvas.getContext("2d");
    m.allowed.forEach((cells, r) => cells.forEach((v, c) => { pen.fillStyle = v ? ink("--m1") : ink("--wash"); pen.fillRect(c * 7, r * 7, 6, 6); }));
    return make("figure", { class: m.own ? "own" : "" }, canvas, make("figcaption", {}, names[m.kind]));
  }));
  $("s-rotary").hidden = !see.shape.rotary;
  if (see.shape.rotary) matrix($("rotary"), see.shape.rotary.cos, { signed: true, power: 1, at });
  if (at) $("rotaryreading").textContent = T(`pair ${at[0]}: a full turn every ${see.shape.rotary.wavelengths[at[0]].toLocaleString()} tokens; cos = ${see.shape.rotary.cos[at[0]][at[1]].toFixed(3)} at position ${at[1]}`, `第 ${at[0]} 对：每 ${see.shape.rotary.wavelengths[at[0]].toLocaleString()} 个词元转一圈；位置 ${at[1]} 处 cos = ${see.shape.rotary.cos[at[0]][at[1]].toFixed(3)}`);
}
$("rotary")?.addEventListener("pointermove", (event) => { const cell = $("rotary").cellAt?.(event); if (cell) drawShape(cell); });

const run = later(async () => {
  const asked = ++see.asked;
  for (const part of [next, masked, attention, lens, experts]) { if (asked !== see.asked) return; try { await part(); } catch (error) { trouble(error); } }
  if (asked === see.asked) $("main").removeAttribute("aria-busy");
}, 150);
const busy = () => $("main").setAttribute("aria-busy", "true"); // what is shown is not yet what was asked for
function refresh() { busy(); run(); }

async function about() {
  see.asked++; // what was asked of the model before is of no use any more
  const chosen = $("model").value;
  busy();
  try {
    const found = await ask("/api/look/about", { model: chosen });
    if ($("model").value !== chosen) return; // another has been chosen meanwhile, and answers for itself
    see.about = found;
    const a = see.about, kinds = { decoder: T("decoder", "解码器"), encoder: T("encoder", "编码器"), "encoder-decoder": T("encoder and decoder", "编码器与解码器") };
    $("about").textContent = `${a.family} · ${kinds[a.kind]} · ${T(`${a.layers} layers, ${a.heads} ${a.heads === 1 ? "head" : "heads"}, width ${a.width}`, `${a.layers} 层，${a.heads} 头，宽 ${a.width}`)} · ${(a.parameters / 1e6).toFixed(1)} M`;
    $("targetbox").hidden = a.kind !== "encoder-decoder";
    const given = $("text").defaultValue, blank = given.replace(/`.*`/, "___"); // the example that stands there at first
    if ([given, blank].includes($("text").value)) $("text").value = a.masked ? blank : given;
    $("legend").textContent = a.kind === "encoder" ? T("Each box is a token. Type ___ in place of a word to mask it.", "每个方框是一个词元。用 ___ 代替一个词即可遮住它。") : T("Each box is a token; the fuller its colour, the more surely the model foretold it.", "每个方框是一个词元；颜色越浓，模型越有把握预测到它。");
    $("stack").replaceChildren(...a.stacks.map((s) => make("option", { value: s, selected: s === a.stacks.at(-1) }, STACKS[s])));
    layers();
    const heads = $("head").value;
    $("head").replaceChildren(...Array.from({ length: a.heads }, (_, i) => make("option", { value: i, selected: String(i) === heads }, String(i))));
    await shape();
    if (a.kind === "encoder-decoder" && !$("target").value) await write().catch(trouble);
    refresh();
  } catch (error) { trouble(error); $("main").removeAttribute("aria-busy"); }
}
function layers() {
  const count = $("stack").value === "encoder" && see.about.kind === "encoder-decoder" ? see.about.encoder_layers : see.about.layers;
  $("layer").replaceChildren(...Array.from({ length: count }, (_, i) => make("option", { value: i, selected: i === count - 1 }, String(i))));
}
if ($("model")) {
  $("model").addEventListener("change", about);
  $("text").addEventListener("input", refresh);
  $("target").addEventListener("input", refresh);
  $("write").addEventListener("click", () => write().catch((error) => { trouble(error); refresh(); }));
  $("temperature").addEventListener("input", () => { $("temperatureout").textContent = $("temperature").value; next().catch(trouble); });
  $("stack").addEventListener("change", () => { layers(); attention().catch(trouble); });
  $("layer").addEventListener("change", () => attention().catch(trouble));
  $("head").addEventListener("change", () => { drawMap(); drawHeads(); });
  const again = () => { if (see.attention) { drawMap(); drawHeads(); } if (see.shape) drawShape(); if (see.experts) drawExperts(); };
  addEventListener("themechange", again);
  addEventListener("resize", later(again, 150));
  about();
}
