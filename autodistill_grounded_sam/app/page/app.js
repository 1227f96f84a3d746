// A label on the picture and its row in the table light up together.
for (const [event, on] of [["pointerover", true], ["pointerout", false]]) {
  document.addEventListener(event, (happened) => {
    const one = happened.target.closest?.("[data-mark]");
    for (const other of one?.closest(".look").querySelectorAll(`[data-mark="${one.dataset.mark}"]`) ?? []) {
      other.classList.toggle("lit", on);
    }
  });
}
// A number typed beside a slider is taken when it is one that the slider has: gradio sends every keystroke on, and the server
// refuses what is empty or out of bounds. On leaving the field it becomes the nearest that there is.
const beside = (field) => field.matches?.('input[type="number"][min][max]');
const fits = (field) => field.valueAsNumber >= Number(field.min) && field.valueAsNumber <= Number(field.max);
document.addEventListener("input", (typed) => {
  if (beside(typed.target) && !fits(typed.target)) typed.stopImmediatePropagation();
}, true);
document.addEventListener("change", ({ target: field }) => {
  if (!beside(field) || fits(field)) return;
  const number = field.valueAsNumber || 0; // an emptied field: the lowest
  field.value = Math.min(Math.max(number, Number(field.min)), Number(field.max));
  field.dispatchEvent(new Event("input", { bubbles: true }));
}, true);
