"use strict";
// Pictures on canvas: a matrix with words at its edges, read by mouse and by arrow keys.
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const shownToken = (text) => (text === "" ? "∅" : text.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/ /g, "·"));
const clipped = (text, most) => { const t = shownToken(text); return t.length > most ? t.slice(0, most - 1) + "…" : t; };
function mix(a, b, share) {
  const parse = (c) => { const m = c.match(/[\da-f]{2}/gi); return m.map((x) => parseInt(x, 16)); };
  const x = parse(a), y = parse(b);
  return `rgb(${x.map((v, i) => Math.round(v + (y[i] - v) * share)).join(",")})`;
}
function matrix(canvas, values, { rows = null, columns = null, colour = "--m1", signed = false, at = null, framed = null, power = 0.6, most = 36 }) {
  const R = values.length, C = values[0].length;
  const font = "12px " + ink("--mono");
  const pen = canvas.getContext("2d");
  pen.font = font;
  const clip = (words) => words.map((w) => clipped(w, 14));
  const left = rows ? clip(rows) : null, top = columns ? clip(columns) : null;
  const margin = left ? Math.min(120, Math.max(...left.map((w) => pen.measureText(w).width)) + 8) : 2;
  const room = Math.max(160, (canvas.parentElement.clientWidth || 600) - 44);
  const size = Math.max(3, Math.min(most, Math.floor((room - margin) / C)));
  const tall = rows ? Math.min(size, 36) : Math.max(3, Math.min(size * 3, 12));
  const longest = top ? Math.max(...top.map((w) => pen.measureText(w).width)) : 0, flat = longest < size - 4;
  const head = top ? (flat ? 20 : Math.min(110, longest + 8)) : 2;
  const width = margin + size * C + 2, height = head + tall * R + 2, ratio = devicePixelRatio || 1;
  canvas.width = width * ratio; canvas.height = height * ratio;
  canvas.style.width = `${width}px`; canvas.style.height = `${height}px`;
  pen.scale(ratio, ratio);
  pen.font = font; pen.textBaseline = "middle";
  const card = ink("--card"), full = ink(colour), other = ink("--seal");
  for (let r = 0; r < R; r++) for (let c = 0; c < C; c++) {
    const v = values[r][c];
    pen.fillStyle = signed && v < 0 ? mix(card, other, Math.abs(v)) : mix(card, full, Math.abs(v) ** power);
    pen.fillRect(margin + c * size, head + r * tall, size - (size > 6), tall - (tall > 6));
  }
  pen.fillStyle = ink("--soft");
  if (left && tall >= 9) left.forEach((w, r) => { pen.textAlign = "right"; pen.fillStyle = at && at[0] === r ? ink("--ink") : ink("--soft"); pen.fillText(w, margin - 5, head + r * tall + tall / 2); });
  if (top && size >= 9) top.forEach((w, c) => { pen.save(); pen.translate(margin + c * size + size / 2, head - 5); if (!flat) pen.rotate(-Math.PI / 2); pen.textAlign = flat ? "center" : "left"; pen.fillStyle = at && at[1] === c ? ink("--ink") : ink("--soft"); pen.fillText(w, 0, flat ? -4 : 0); pen.restore(); });
  pen.strokeStyle = ink("--ink"); pen.lineWidth = 1.5;
  for (const [r, c] of framed || []) pen.strokeRect(margin + c * size + 0.75, head + r * tall + 0.75, size - 2.5, tall - 2.5);
  if (at) { pen.strokeStyle = ink("--seal"); pen.lineWidth = 2; pen.strokeRect(margin + at[1] * size, head + at[0] * tall, size - 1, tall - 1); }
  canvas.cellAt = (event) => {
    const box = canvas.getBoundingClientRect();
    const c = Math.floor((event.clientX - box.left - margin) / size), r = Math.floor((event.clientY - box.top - head) / tall);
    return r >= 0 && c >= 0 && r < R && c < C ? [r, c] : null;
  };
}
