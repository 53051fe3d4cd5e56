"use strict";
// The difference of two texts by words (Chinese: characters): the longest common subsequence, after equal ends are set aside.
function pieces(text) { return text.match(/[\p{Script=Han}]|[^\s\p{Script=Han}]+|\s+/gu) || []; }
function difference(before, after) {
  let a = pieces(before), b = pieces(after);
  const head = [], tail = [];
  while (a.length && b.length && a[0] === b[0]) { head.push(["same", a[0]]); a = a.slice(1); b = b.slice(1); }
  while (a.length && b.length && a.at(-1) === b.at(-1)) { tail.unshift(["same", a.at(-1)]); a = a.slice(0, -1); b = b.slice(0, -1); }
  if (a.length * b.length > 1e6) return [...head, ["gone", a.join("")], ["new", b.join("")], ...tail];
  const L = Array.from({ length: a.length + 1 }, () => new Uint32Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) for (let j = b.length - 1; j >= 0; j--) L[i][j] = a[i] === b[j] ? L[i + 1][j + 1] + 1 : Math.max(L[i + 1][j], L[i][j + 1]);
  const out = [];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { out.push(["same", a[i]]); i++; j++; }
    else if (i < a.length && (j >= b.length || L[i + 1][j] >= L[i][j + 1])) out.push(["gone", a[i++]]);
    else out.push(["new", b[j++]]);
  }
  return [...head, ...out, ...tail];
}
function drawDifference(place, before, after) {
  const runs = [];
  for (const [kind, text] of difference(before, after)) { if (runs.length && runs.at(-1)[0] === kind) runs.at(-1)[1] += text; else runs.push([kind, text]); }
  place.replaceChildren(...runs.map(([kind, text]) => (kind === "same" ? text : make(kind === "gone" ? "del" : "ins", {}, text))));
}
