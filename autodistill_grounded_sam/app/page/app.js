// A label on the picture and its row in the table light up together.
for (const [event, on] of [["pointerover", true], ["pointerout", false]]) {
  document.addEventListener(event, (happened) => {
    const one = happened.target.closest?.("[data-mark]");
    for (const other of one?.closest(".look").querySelectorAll(`[data-mark="${one.dataset.mark}"]`) ?? []) {
      other.classList.toggle("lit", on);
    }
  });
}
