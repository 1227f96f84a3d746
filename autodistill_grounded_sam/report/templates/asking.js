
// Review: the labels of the section, one key a decision. Every decision is a line as of run/reviews.jsonl; lines are only ever
// added, undo adds the one that stood before. They are kept in this browser, and leave it as a download.
(() => {
  const section = document.getElementById("review");
  if (!section) return;
  const part = (name) => document.getElementById(`review-${name}`);
  const classes = JSON.parse(section.dataset.classes);
  const shots = [...section.querySelectorAll(".shot[data-line]")];
  const lines = shots.map((shot) => JSON.parse(shot.dataset.line));
  const place = `grounded-sam review ${section.dataset.run}`;
  const BUTTONS = 9; // classes with a key of their own
  let log = []; // lines, in the order of their times
  let steps = []; // places in `log` of what undo takes back, the last one first
  let safe = true; // whether all of it is kept by the browser, or downloaded
  let current = 0;

  const name = (line) => JSON.stringify([line.digest, line.xyxy, line.class]);
  const said = (line, before = log.length) => log.slice(0, before).findLast((one) => name(one) === name(line));
  const decided = (line) => { const last = said(line); return last && last.verdict !== "withdrawn" ? last : null; };
  const latest = () => [...new Map(log.map((line) => [name(line), line])).values()];
  const standing = () => latest().filter((line) => line.verdict !== "withdrawn");
  const undecided = () => lines.flatMap((line, at) => (decided(line) ? [] : [at]));
  const many = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

  const read = () => {
    try {
      const kept = JSON.parse(localStorage.getItem(place));
      if (Array.isArray(kept?.log) && Array.isArray(kept.steps)) ({ log, steps } = kept);
    } catch { /* a browser that keeps nothing for pages from disk, or a text of somebody else */ }
  };
  const write = () => {
    try {
      localStorage.setItem(place, JSON.stringify({ log, steps }));
      safe = true;
    } catch { safe = false; }
  };
  const add = (line) => { // each later than the last one, even if the clock was set back: the latest of a label counts
    const last = log.length ? Date.parse(log[log.length - 1].time) : 0;
    log.push({ ...line, time: new Date(Math.max(Date.now(), last + 1)).toISOString() });
    write();
  };

  // ---- deciding

  const accept = () => decide(lines[current].class ? lines[current] : { ...lines[current], classes });
  const reject = () => {
    const { mask, ...line } = lines[current];
    if (line.class) decide({ ...line, verdict: "rejected" });
  };
  const rename = (to) => {
    const line = lines[current];
    if (line.class) decide(to === line.class ? line : { ...line, verdict: "corrected", to_class: to });
  };
  const decide = (line) => {
    steps.push(log.length);
    add(line);
    const open = undecided();
    render();
    if (open.length) show(open.find((at) => at > current) ?? open[0]);
    else dialog.close();
  };
  const undo = () => {
    const step = steps.pop();
    if (step === undefined) return;
    const { image, digest, xyxy, class: of } = log[step];
    const before = said(log[step], step);
    add(before || { image, digest, xyxy, class: of, verdict: "withdrawn" });
    render();
    const at = lines.findIndex((line) => name(line) === name(log[step]));
    if (dialog.open && at >= 0) show(at);
  };
  const download = () => {
    const made = document.createElement("a");
    const text = latest().map((line) => `${JSON.stringify(line)}\n`).join("");
    made.href = URL.createObjectURL(new Blob([text], { type: "application/jsonl" }));
    made.download = "reviews.jsonl";
    made.click();
    setTimeout(() => URL.revokeObjectURL(made.href), 10000);
    safe = true;
    part("next").hidden = false;
  };

  // ---- showing

  const words = (line) => {
    const last = decided(line);
    if (!last) return "";
    return { accepted: "✓ right", empty: "✓ nothing here", rejected: "✕ wrong" }[last.verdict] || `✓ ${last.to_class}`;
  };
  const render = () => {
    shots.forEach((shot, at) => {
      const told = words(lines[at]);
      shot.querySelector(".verdict").textContent = told;
      shot.classList.toggle("wrong", told.startsWith("✕"));
      const what = shot.querySelector("svg").getAttribute("aria-label");
      openers[at].setAttribute("aria-label", `Review: ${what}${told ? `, decided: ${told.slice(2)}` : ""}`);
    });
    const count = standing().length;
    const open = undecided().length;
    part("count").textContent = `${many(count, "decision")}, ${open ? `${open} left` : "none left on this page"}.${safe ? "" : " This browser does not keep them: download them before you close the page."}`;
    part("start").textContent = count ? "Go on" : "Review";
    part("start").disabled = !open;
    part("undo").disabled = !steps.length;
    part("download").disabled = !log.length;
  };

  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-labelledby", "review-question");
  const body = document.createElement("div");
  body.className = "zoomed judged";
  const picture = document.createElement("div");
  picture.className = "picture";
  const side = document.createElement("div");
  side.className = "side";
  body.append(picture, side);
  dialog.append(body);
  document.body.append(dialog);

  const row = (className, ...held) => {
    const made = document.createElement("div");
    made.className = className;
    made.append(...held);
    return made;
  };
  const text = (tag, className, told) => {
    const made = document.createElement(tag);
    made.className = className;
    made.textContent = told;
    return made;
  };
  const move = (step) => show((current + step + lines.length) % lines.length);
  const bare = () => body.classList.toggle("bare");
  const finder = () => {
    const made = document.createElement("select");
    made.setAttribute("aria-label", "Another class");
    made.append(new Option("another class …", ""), ...classes.slice(BUTTONS).map((one) => new Option(one)));
    made.addEventListener("change", () => made.value && rename(made.value));
    return made;
  };
  const show = (at) => {
    current = at;
    const line = lines[at];
    const told = words(line);
    const shown = shots[at].querySelector("svg").cloneNode(true);
    shown.setAttribute("viewBox", shots[at].dataset.full);
    picture.replaceChildren(shown);
    const question = text("h3", "", line.class ? `Is this a ${line.class}?` : "Is nothing here?");
    question.id = "review-question";
    const right = button(line.class ? "Right" : "Nothing here", "A", accept);
    const wrong = button("Wrong", "X", reject);
    right.classList.add("right");
    right.setAttribute("aria-describedby", question.id); // it has the focus, and is read with what it answers
    wrong.classList.add("wrong");
    wrong.hidden = !line.class;
    const others = classes.slice(0, BUTTONS).map((one, number) => button(one, String(number + 1), () => rename(one)));
    const back = button("Undo", "U", undo);
    back.disabled = !steps.length;
    const status = text("p", "status", `${at + 1} of ${lines.length}${told ? `, decided: ${told}` : ""}`);
    side.replaceChildren(
      question, row("verdicts", wrong, right),
      ...(line.class && classes.length > 1 ? [text("p", "else", "It is rather a"), row("buttons classes", ...others, ...(classes.length > BUTTONS ? [finder()] : []))] : []),
      row("buttons", button("Previous", "←", () => move(-1)), button("Next", "→", () => move(1)), back, button("Outlines", "M", bare), button("Close", "Esc", () => dialog.close())),
      status, shots[at].querySelector(".more").cloneNode(true),
    );
    if (!dialog.open) dialog.showModal();
    right.focus();
  };

  const openers = shots.map((shot, at) => opener(shot, () => show(at)));
  for (const shot of shots) shot.append(text("p", "verdict", ""));
  dialog.addEventListener("close", () => (undecided().length ? openers[current] : part("download")).focus());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    if (event.repeat && !event.key.startsWith("Arrow")) { event.preventDefault(); return; } // a key held down is one decision
    const key = pressed(event);
    const digit = Number(key);
    const act = digit >= 1 && digit <= Math.min(BUTTONS, classes.length) ? () => rename(classes[digit - 1]) : {
      a: accept, x: reject, delete: reject, u: undo, m: bare, arrowleft: () => move(-1), arrowright: () => move(1),
      r: () => side.querySelector("select")?.focus(),
    }[key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  part("start").addEventListener("click", () => show(undecided()[0]));
  part("undo").addEventListener("click", undo);
  part("download").addEventListener("click", download);
  window.addEventListener("storage", (event) => { if (event.key === place) { read(); render(); } }); // the page is open twice
  window.addEventListener("beforeunload", (event) => { if (!safe) event.preventDefault(); });
  read();
  render();
  section.querySelector(".asking").hidden = false;
})();
