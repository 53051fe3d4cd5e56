// Answers: only where rules or words differ, and by words of prompt or answer.
const pairs = [...document.querySelectorAll(".pair")];
const which = document.getElementById("which");
const words = document.getElementById("words");
const count = document.getElementById("count");
function filter() {
  const wanted = words.value.trim().toLowerCase();
  let shown = 0;
  for (const pair of pairs) {
    const kind = which.value === "all" || pair.dataset.kind === which.value || (which.value === "words" && pair.dataset.kind === "rules");
    pair.hidden = !(kind && (!wanted || pair.textContent.toLowerCase().includes(wanted)));
    shown += !pair.hidden;
  }
  count.textContent = `${shown} / ${pairs.length}`;
}
if (which) {
  which.addEventListener("change", filter);
  words.addEventListener("input", filter);
  filter();
}
