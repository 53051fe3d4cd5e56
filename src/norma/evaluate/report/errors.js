// Examples: filters for what people said and what the model said, and words to look for.
const shown = [...document.querySelectorAll(".wrong")];
const choose = [...document.querySelectorAll(".filters select")];
const find = document.getElementById("find");
function filter() {
  const sought = (find ? find.value : "").toLowerCase();
  let count = 0;
  for (const card of shown) {
    const fits = choose.every((select) => !select.value || card.dataset[select.name] === select.value);
    card.hidden = !(fits && card.textContent.toLowerCase().includes(sought));
    count += !card.hidden;
  }
  document.getElementById("count").textContent = count + " / " + shown.length;
}
for (const control of [...choose, find]) if (control) control.addEventListener("input", filter);
for (const cell of document.querySelectorAll("[data-row]")) cell.addEventListener("click", () => {
  for (const select of choose) select.value = select.name === "given" ? cell.dataset.row : cell.dataset.column;
  filter();
  document.getElementById("examples").scrollIntoView();
});
if (shown.length) filter();
