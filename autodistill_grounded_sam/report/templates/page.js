"use strict";
// Zoom, filter and keyboard. The page is whole without any of it.
const button = (text, key, act) => {
  const made = document.createElement("button");
  made.type = "button";
  made.append(text);
  const hint = document.createElement("kbd");
  hint.append(key);
  hint.setAttribute("aria-hidden", "true");
  made.append(hint);
  made.addEventListener("click", act);
  return made;
};

// The key in small letters; where the letters are others, or digits need Shift, its place counts.
const pressed = ({ key, code }) => (key.length > 1 || /[a-z0-9]/i.test(key) ? key : code.replace(/^(Key|Digit)/, "")).toLowerCase();

// A button above the whole picture.
const opener = (shot, act) => {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "open";
  made.addEventListener("click", act);
  shot.append(made);
  return made;
};

(() => {
  const shots = [...document.querySelectorAll(".shot[data-full]:not([data-line])")];
  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-label", "One label, enlarged");
  const body = document.createElement("div");
  body.className = "zoomed";
  dialog.append(body);
  document.body.append(dialog);
  let current = 0;

  const visible = () => shots.filter((one) => one.offsetParent !== null);
  const move = (step) => {
    const now = visible();
    const place = now.indexOf(shots[current]);
    show(shots.indexOf(now[(place + step + now.length) % now.length]));
  };
  const bare = () => body.classList.toggle("bare");
  const close = () => dialog.close();

  // The whole image as a frame, and in it the piece that is shown.
  const locator = (shot) => {
    const [x, y, width, height] = shot.dataset.where.split(" ").map(Number);
    const [, , across, down] = shot.dataset.full.split(" ").map(Number);
    const tall = 100 * (down / height) / (across / width);
    const rect = (name, ...numbers) => {
      const made = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      made.setAttribute("class", name);
      ["x", "y", "width", "height"].forEach((key, at) => made.setAttribute(key, numbers[at]));
      return made;
    };
    const map = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    map.setAttribute("class", "locator");
    map.setAttribute("viewBox", `0 0 100 ${tall}`);
    map.setAttribute("aria-hidden", "true");
    map.append(rect("well", 0, 0, 100, tall), rect("reach", 100 * x, tall * y, 100 * width, tall * height));
    return map;
  };

  const show = (place) => {
    current = place;
    const shot = shots[place];
    const picture = shot.querySelector("svg").cloneNode(true);
    picture.setAttribute("viewBox", shot.dataset.full);
    const side = document.createElement("div");
    side.className = "side";
    const buttons = document.createElement("div");
    buttons.className = "buttons";
    buttons.append(
      button("Previous", "←", () => move(-1)), button("Next", "→", () => move(1)),
      button("Outlines", "M", bare), button("Close", "Esc", close),
    );
    side.append(shot.querySelector(".more").cloneNode(true), locator(shot), buttons);
    body.replaceChildren(picture, side);
    if (!dialog.open) dialog.showModal();
    buttons.children[1].focus();
  };

  const openers = shots.map((shot, place) => {
    const made = opener(shot, () => show(place));
    made.setAttribute("aria-label", `Enlarge: ${shot.querySelector("svg").getAttribute("aria-label")}`);
    return made;
  });
  dialog.addEventListener("close", () => openers[current].focus());
  dialog.addEventListener("click", (event) => event.target === dialog && close());
  dialog.addEventListener("keydown", (event) => {
    const act = { arrowleft: () => move(-1), arrowright: () => move(1), m: bare }[pressed(event)];
    if (act && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      act();
    }
  });

  const filter = document.querySelector(".filter");
  const field = filter.querySelector("input");
  const named = [...document.querySelectorAll("[data-name]")];
  filter.hidden = document.querySelectorAll("article.class").length < 2;
  filter.addEventListener("submit", (event) => event.preventDefault());
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    let left = 0;
    for (const one of named) {
      one.hidden = !one.dataset.name.toLowerCase().includes(wanted);
      left += one.tagName === "ARTICLE" && !one.hidden;
    }
    filter.querySelector("output").textContent = wanted ? `${left} shown` : "";
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !filter.hidden && !dialog.open && document.activeElement !== field) {
      event.preventDefault();
      field.focus();
    }
  });

  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((one) => { one.open = true; });
  });
  window.addEventListener("afterprint", () => opened.forEach((one) => { one.open = false; }));
})();
