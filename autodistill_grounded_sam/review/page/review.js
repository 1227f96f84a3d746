"use strict";
// The page of `grounded-sam review`. It shows a decision at once and sends it behind the person's back, in order; names from
// files and ontologies only ever become text (textContent), never markup.

const $ = (id) => document.getElementById(id);
const AHEAD = 4; // stops fetched before they are asked for, with their pictures
const CLOSE = 0.42; // share of the stage that the label in question fills
const MOST_ZOOM = 8; // screen pixels a pixel of the image
const STANDS = ["accepted", "corrected", "added"];

let about = null; // what the server said of the run
let now = null; // the stop on the screen: {stop, labels, image}
let focus = null; // the label in question, one of now.image.labels
let ahead = []; // the stops that come next
let filling = null; // the request that fills `ahead`
let trail = []; // the stops that were shown
let whole = false; // the whole picture, or close to the label
let marks = true;
let drawing = null; // {verb: "add" | "redraw", box, class}
let line = Promise.resolve(); // requests leave one after the other, so that undo meets what it undoes
let waiting = 0; // decisions on their way
let asked = 0; // requests of any kind
let moving = false;

// ---- talking to the server

async function ask(path, body) {
  const how = body ? { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) } : {};
  busy(1);
  try {
    const answer = await fetch(path, how);
    const content = await answer.json();
    if (!answer.ok) throw new Error(content.error || answer.statusText);
    return content;
  } finally { busy(-1); }
}

function busy(more) {
  asked += more;
  document.querySelector("main").setAttribute("aria-busy", String(asked > 0));
}

function send(path, body) {
  waiting += 1;
  const sent = line.then(() => ask(path, body));
  line = sent.catch(() => {});
  return sent.finally(() => { waiting -= 1; }).then((answer) => { progress(answer); return answer; }, (error) => { fail(error, waiting + 1); throw error; });
}

function fail(error, lost = waiting) {
  if ($("fault").open) return; // the first one knows what was on its way
  $("fault-text").textContent = error instanceof TypeError
    ? `The program behind this page does not answer. Start \`grounded-sam review\` again; what was kept before is safe. The last decisions here were not kept: ${lost} at most.`
    : error.message;
  $("fault").showModal();
}

function progress(answer) {
  about.left = answer.left;
  $("undo").disabled = answer.undo === 0;
  $("bar").max = Math.max(1, about.total);
  $("bar").value = about.total - about.left;
  $("count").textContent = about.left ? `${about.left.toLocaleString()} left` : "all decided";
}

// ---- going from stop to stop

const label = (number) => now.image.labels.find((one) => one.number === number);
const open = (stop) => !stop.image.verdict && (stop.labels.length
  ? stop.labels.some((number) => stop.image.labels.some((one) => one.number === number && !one.verdict))
  : !stop.image.labels.some((one) => STANDS.includes(one.verdict)));

function fill() {
  if (filling || ahead.length >= AHEAD || !about) return filling || Promise.resolve();
  const last = ahead.length ? ahead[ahead.length - 1].stop : now ? now.stop : -1;
  filling = ask(`stops?after=${last}&count=${AHEAD}`).then((answer) => {
    for (const stop of answer.stops) { ahead.push(stop); new Image().src = picture(stop.image, about.sides[0]); }
  }).finally(() => { filling = null; });
  return filling;
}

async function forward() {
  if (moving) return;
  stopDrawing();
  moving = true;
  try { await following(); } finally { moving = false; }
}

async function following() {
  ahead = ahead.filter(open);
  if (!ahead.length) await line.then(fill).catch(fail);
  ahead = ahead.filter(open);
  if (!ahead.length && now && now.stop >= 0) { // once more from the beginning, for what was skipped
    const rest = await ask("stops?after=-1&count=4").catch((error) => { fail(error); return { stops: [] }; });
    ahead = rest.stops.filter((stop) => stop.stop !== now.stop || open(now));
  }
  if (now) trail.push(now.stop);
  show(ahead.shift() || null);
  fill().catch(fail);
}

async function back() {
  if (!trail.length) return;
  stopDrawing();
  const at = trail.pop();
  const { stops } = await send(`stops?after=${at - 1}&count=1&every=1`);
  ahead = []; // what follows is fetched anew
  show(stops[0]);
  fill().catch(fail);
}

function show(stop, label_ = null) {
  now = stop;
  document.body.classList.toggle("done", !stop);
  focus = stop ? label_ || stop.labels.map(label).find((one) => one && !one.verdict) || stop.labels.map(label).find(Boolean) || null : null;
  render();
  tell();
}

function look(one) { // at a label of this picture; what was being drawn was of another
  stopDrawing();
  focus = one;
  render();
  tell();
}

function next(step) { // another label of this picture, without deciding
  const all = now ? now.image.labels : [];
  if (all.length) look(all[(all.indexOf(focus) + step + all.length) % all.length]);
}

function onward() { // to the next label in question, here or at the next stop
  const left = now.image.verdict ? null : now.labels.map(label).find((one) => one && !one.verdict);
  if (!left) return forward();
  look(left);
}

// ---- deciding

function decide(one, verdict, change = {}) {
  const decision = { verdict, xyxy: one.key, class: one.key_class, ...change };
  Object.assign(one, { verdict, xyxy: change.to_xyxy || one.xyxy, class: change.to_class || one.class });
  if (change.to_xyxy && change.redrawn) one.path = "";
  delete decision.redrawn;
  return post(decision);
}

function post(decision) {
  const { stop, image } = now;
  const sent = send("decide", { stop, image: image.number, decision }).then((answer) => { take(answer.image); return answer; });
  sent.catch(() => {});
  return sent;
}

function take(image) { // the server's word about a picture, once nothing younger is on its way
  for (const stop of ahead) if (stop.image.number === image.number) stop.image = image;
  if (waiting || !now || now.image.number !== image.number) return;
  const same = focus && image.labels.find((one) => one.key_class === focus.key_class && String(one.key) === String(focus.key));
  now.image = image;
  focus = same || null;
  render();
}

function right() {
  if (!now) return;
  if (!focus) { close_(now.image.labels.some((one) => STANDS.includes(one.verdict)) ? "complete" : "empty"); return; }
  if (!["corrected", "added", "accepted"].includes(focus.verdict)) { done(`✓ ${focus.class}`); decide(focus, "accepted"); }
  onward();
}

function wrong() {
  if (!focus) return;
  done(`✕ no ${focus.class}`);
  decide(focus, "rejected");
  onward();
}

function rename(name) {
  if (drawing) { drawing.class = name; hint(); return; }
  if (!focus) return;
  const moved = String(focus.xyxy) !== String(focus.key);
  if (name === focus.key_class && !moved) decide(focus, focus.number === null || focus.verdict === "added" ? "added" : "accepted");
  else decide(focus, "corrected", { to_class: name, ...(moved ? { to_xyxy: focus.xyxy } : {}) });
  focus.class = name;
  done(`✓ it is a ${name}`);
  onward();
}

function close_(verdict) {
  if (!now) return;
  for (const one of now.image.labels) {
    if (verdict === "empty") one.verdict = "rejected";
    else one.verdict = one.verdict || "accepted";
  }
  now.image.verdict = verdict;
  for (const stop of ahead) if (stop.image.number === now.image.number) stop.image.verdict = verdict;
  done(verdict === "empty" ? "✓ nothing is here" : "✓ all is right");
  post({ verdict });
  forward();
}

async function undo() {
  if (drawing) { stopDrawing(); render(); return; }
  const answer = await send("undo", {}).catch(() => null);
  if (!answer || answer.stop === null) return;
  ahead = [];
  if (now && now.stop !== answer.stop) trail.push(now.stop);
  show(answer);
  done("↶ taken back");
  fill().catch(fail);
}

// ---- drawing

function startDrawing(verb) {
  if (!now || (verb === "redraw" && !focus)) return;
  const box = verb === "redraw" ? [...focus.xyxy] : null;
  drawing = { verb, box, class: focus ? focus.class : about.classes[0] };
  render();
  hint();
}

function stopDrawing() {
  drawing = null;
  $("draft").toggleAttribute("hidden", true);
  $("hint").hidden = true;
  $("view").classList.remove("drawing");
}

function hint() {
  $("view").classList.add("drawing");
  $("hint").hidden = false;
  $("hint").textContent = drawing.verb === "add"
    ? `Drag a box around the missed ${drawing.class}; a digit names another class`
    : `Drag the box of this ${drawing.class} anew; arrows move it, Shift sizes it, Enter keeps it`;
  const box = drawing.box;
  $("draft").toggleAttribute("hidden", !box);
  if (box) put($("draft"), { x: box[0], y: box[1], width: box[2] - box[0], height: box[3] - box[1] });
}

function nudge(key, sizes) {
  const [x, y, w, h] = region();
  const step = Math.max(1, Math.min(w, h) / 100);
  const box = drawing.box || [x + w * 0.4, y + h * 0.4, x + w * 0.6, y + h * 0.6];
  const axis = key === "ArrowLeft" || key === "ArrowRight" ? 0 : 1;
  const by = key === "ArrowLeft" || key === "ArrowUp" ? -step : step;
  if (!sizes) box[axis] += by;
  box[axis + 2] += by;
  drawing.box = clip(box);
  hint();
}

function clip([x1, y1, x2, y2]) {
  const { width, height } = now.image;
  const between = (value, most) => Math.round(Math.min(Math.max(value, 0), most) * 100) / 100;
  return [between(Math.min(x1, x2), width), between(Math.min(y1, y2), height), between(Math.max(x1, x2), width), between(Math.max(y1, y2), height)];
}

function keep() {
  const { verb, box, class: name } = drawing;
  if (!box || box[2] - box[0] < 1 || box[3] - box[1] < 1) return;
  stopDrawing();
  const image = now.image;
  if (verb === "add") {
    focus = { number: null, key: box, key_class: name, xyxy: box, class: name, verdict: "added", score: null, trust: null, path: "" };
    image.labels.push(focus);
    post({ verdict: "added", xyxy: box, class: name });
  } else {
    decide(focus, "corrected", { to_xyxy: box, redrawn: true, ...(name === focus.key_class ? {} : { to_class: name }) });
  }
  const { key, key_class } = focus;
  done(verb === "add" ? `+ ${name}` : `✓ box of this ${name}`);
  if (about.segments) {
    const masked = line.then(() => ask("mask", { image: image.number, xyxy: key, class: key_class })); // others do not wait for it
    masked.then((answer) => { take(answer.image); }, (error) => done(`${name} stays a box: ${error.message}`));
  }
  render();
}

function point(event) {
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform($("view").getScreenCTM().inverse());
  return [at.x, at.y];
}

function drag(event) {
  if (!drawing || event.button > 0) return;
  event.preventDefault();
  const view = $("view");
  const from = point(event);
  view.setPointerCapture(event.pointerId);
  const move = (moved) => { if (!drawing) return; drawing.box = clip([...from, ...point(moved)]); hint(); };
  const end = (ended) => {
    view.removeEventListener("pointermove", move);
    view.removeEventListener("pointerup", end);
    view.removeEventListener("pointercancel", end);
    if (ended.type === "pointerup" && drawing && drawing.box) keep();
  };
  view.addEventListener("pointermove", move);
  view.addEventListener("pointerup", end);
  view.addEventListener("pointercancel", end);
}

// ---- showing

const put = (element, attributes) => { for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value); return element; };
const svg = (name, attributes) => put(document.createElementNS("http://www.w3.org/2000/svg", name), attributes);
const colour = (name) => about.colours[about.classes.indexOf(name) % about.colours.length] || "#9a9da3";
const picture = (image, side) => `picture?image=${image.number}&side=${side}`;

function make(tag, className, text) {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

function region() { // what of the picture the stage shows: x, y, width, height in pixels of the image
  const { width, height } = now.image;
  const stage = $("stage").getBoundingClientRect();
  const ratio = stage.width / Math.max(1, stage.height);
  let w = Math.max(width, height * ratio) * 1.03;
  let [x, y] = [width / 2, height / 2];
  if (focus && !whole && !(drawing && drawing.verb === "add")) {
    const [x1, y1, x2, y2] = focus.xyxy;
    const near = Math.max((x2 - x1) / CLOSE, ((y2 - y1) / CLOSE) * ratio, stage.width / MOST_ZOOM);
    if (near < w) {
      w = near;
      const least = (size, span) => [Math.min(size / 2, span * 0.25), Math.max(size / 2, size - span * 0.25)];
      const [left, most] = least(width, w);
      const [top, lowest] = least(height, w / ratio);
      x = Math.min(Math.max((x1 + x2) / 2, left), most);
      y = Math.min(Math.max((y1 + y2) / 2, top), lowest);
    }
  }
  return [x - w / 2, y - w / ratio / 2, w, w / ratio];
}

function render() {
  $("zoom").setAttribute("aria-pressed", String(whole));
  for (const id of ["reject", "redraw"]) $(id).disabled = !focus;
  for (const id of ["accept", "add", "complete", "empty", "skip", "zoom"]) $(id).disabled = !now;
  question();
  classes();
  list();
  paint();
}

function question() {
  const title = $("question");
  title.replaceChildren();
  $("facts").textContent = "";
  $("where").hidden = !now;
  $("accept").classList.toggle("said", Boolean(focus && STANDS.includes(focus.verdict)));
  $("reject").classList.toggle("said", Boolean(focus && focus.verdict === "rejected"));
  if (!now) { title.textContent = "All decided"; $("facts").textContent = "grounded-sam decide writes the dataset"; return; }
  $("where").textContent = now.image.id;
  if (!focus) { title.textContent = "Is nothing here?"; $("facts").textContent = "no label was made"; return; }
  const name = make("span", "name", focus.class);
  name.style.setProperty("--own", colour(focus.class));
  title.append("Is this a ", name, "?");
  const facts = [];
  if (focus.trust !== null) facts.push(`trust ${Math.round(focus.trust * 100)} %`);
  if (focus.score !== null) facts.push(`score ${focus.score.toFixed(2)}`);
  if (focus.verdict) facts.push(focus.verdict);
  if (now.image.verdict) facts.push(`picture confirmed ${now.image.verdict}`);
  $("facts").textContent = facts.join(" · ");
}

function classes() {
  const box = $("classes");
  if (box.childElementCount !== Math.min(9, about.classes.length) + (about.classes.length > 9 ? 1 : 0)) {
    box.replaceChildren(...about.classes.slice(0, 9).map((name, place) => {
      const button = make("button", "", "");
      button.append(dot(name), make("span", "name", name), make("kbd", "", String(place + 1)));
      button.setAttribute("aria-keyshortcuts", String(place + 1));
      button.addEventListener("click", () => rename(name));
      return button;
    }));
    if (about.classes.length > 9) {
      const more = make("button", "", "");
      more.append(make("span", "name", "another"), make("kbd", "", "R"));
      more.addEventListener("click", find);
      box.append(more);
    }
  }
  about.classes.slice(0, 9).forEach((name, place) => box.children[place].setAttribute("aria-pressed", String(Boolean(focus && focus.class === name))));
}

function dot(name) {
  const element = make("span", "dot", "");
  element.style.setProperty("--own", colour(name));
  return element;
}

function list() {
  const signs = { accepted: "✓", corrected: "✓", added: "+", rejected: "✕" };
  $("labels").replaceChildren(...(now ? now.image.labels : []).map((one) => {
    const row = document.createElement("li");
    const button = make("button", one.verdict === "rejected" ? "gone" : "", "");
    button.append(dot(one.class), make("span", "name", one.class));
    button.append(make("span", "score", `${signs[one.verdict] || ""} ${one.score === null ? "" : one.score.toFixed(2)}`));
    if (one === focus) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => look(one));
    row.append(button);
    return row;
  }));
}

function paint() {
  const view = $("view");
  view.toggleAttribute("hidden", !now);
  if (!now) return;
  const { image } = now;
  const [x, y, w, h] = region();
  view.setAttribute("viewBox", `${x} ${y} ${w} ${h}`);
  const stage = $("stage").getBoundingClientRect();
  const wanted = (stage.width * window.devicePixelRatio) / w * Math.max(image.width, image.height);
  const large = Math.max(image.width, image.height) > about.sides[0] && wanted > about.sides[0] * 1.3;
  load(image, about.sides[large ? 1 : 0]);
  put($("photo"), { width: image.width, height: image.height });
  const group = $("marks");
  group.replaceChildren();
  $("shade").setAttribute("d", marks && focus && !drawing ? shade(image) : "");
  plate([x, y, w, h], stage);
  if (marks) {
    for (const one of image.labels) if (one !== focus) mark(group, one, false);
    if (focus) mark(group, focus, true);
  }
}

function plate([x, y, w, h], stage) { // the name beside the box, where the eye is
  const element = $("plate");
  element.hidden = !focus || !marks || Boolean(drawing);
  if (element.hidden) return;
  element.textContent = focus.class;
  element.style.setProperty("--own", colour(focus.class));
  const scale = stage.width / w;
  const [x1, y1, , y2] = focus.xyxy;
  const high = (y1 - y) * scale - 32;
  const left = Math.min(Math.max((x1 - x) * scale - 2, 4), stage.width - element.offsetWidth - 4);
  element.style.translate = `${left}px ${high > 4 ? high : Math.min((y2 - y) * scale + 8, stage.height - 60)}px`;
}

function load(image, side) { // the small picture stays until the large one is there
  const photo = $("photo");
  const href = picture(image, side);
  if (photo.getAttribute("href") === href) return;
  if (side === about.sides[0]) { photo.setAttribute("href", href); return; }
  if (!(photo.getAttribute("href") || "").startsWith(`picture?image=${image.number}&`)) photo.setAttribute("href", picture(image, about.sides[0]));
  const large = new Image();
  large.addEventListener("load", () => { if (now && now.image.number === image.number) photo.setAttribute("href", href); });
  large.src = href;
}

function shade(image) {
  const [x1, y1, x2, y2] = focus.xyxy;
  const pad = Math.max(x2 - x1, y2 - y1) * 0.12;
  const far = Math.max(image.width, image.height) * 10;
  const [left, top, right_, bottom] = clip([x1 - pad, y1 - pad, x2 + pad, y2 + pad]);
  return `M${-far} ${-far}H${far}V${far}H${-far}ZM${left} ${top}H${right_}V${bottom}H${left}Z`;
}

function mark(group, one, isFocus) {
  const own = colour(one.class);
  const [x1, y1, x2, y2] = one.xyxy;
  const box = { x: x1, y: y1, width: x2 - x1, height: y2 - y1 };
  const gone = one.verdict === "rejected" ? " gone" : "";
  if (one.path && !gone) group.append(put(svg("path", { d: one.path, class: `area${isFocus ? " now" : ""}`, "fill-rule": "evenodd" }), { stroke: own, ...(isFocus ? { fill: own } : {}) }));
  group.append(svg("rect", { ...box, class: `mark case${isFocus ? " now" : ""}${gone}` }));
  group.append(put(svg("rect", { ...box, class: `mark${isFocus ? " now" : ""}${gone}` }), gone ? {} : { stroke: own }));
  if (isFocus) return;
  const hit = svg("rect", { ...box, class: "hit" });
  hit.addEventListener("click", () => { if (!drawing) look(one); });
  group.append(hit);
}

function say(text) { $("said").textContent = text; }

function done(text) { // what was decided last, for who looks and who listens
  $("last").textContent = text;
  say(text);
}

function tell() { // for who does not see the picture change
  if (!now) { say("all decided"); return; }
  const place = focus ? `${focus.class}, ${now.image.labels.indexOf(focus) + 1} of ${now.image.labels.length} labels in ${now.image.id}` : `no label in ${now.image.id}`;
  window.setTimeout(() => say(place), 400);
}

// ---- classes by name

function find() {
  if (!now || (!focus && !drawing)) return;
  $("words").value = "";
  match();
  $("finder").showModal();
  $("words").focus();
}

function match() {
  const words = $("words").value.trim().toLowerCase();
  const fits = about.classes.filter((name) => name.toLowerCase().includes(words));
  fits.sort((a, b) => Number(b.toLowerCase().startsWith(words)) - Number(a.toLowerCase().startsWith(words)));
  $("found").replaceChildren(...fits.slice(0, 12).map((name) => {
    const row = document.createElement("li");
    const button = make("button", "", "");
    button.append(dot(name), make("span", "name", name));
    button.addEventListener("click", () => { $("finder").close(); rename(name); });
    row.append(button);
    return row;
  }));
}

// ---- keys

const KEYS = {
  a: right, Enter: right, x: wrong, Delete: wrong, Backspace: wrong, b: () => startDrawing("redraw"), n: () => startDrawing("add"),
  c: () => close_("complete"), e: () => close_("empty"), u: undo, ArrowRight: forward, ArrowLeft: back,
  j: () => next(1), k: () => next(-1), r: find, z: zoom, m: () => { marks = !marks; render(); }, "?": () => $("help").showModal(),
};

function pressed({ key: name, code }) { // where the letters are others, or digits need Shift, the place of the key counts
  if (name.length > 1) return name;
  return (/[a-z0-9?]/i.test(name) ? name : code.replace(/^(Key|Digit)/, "")).toLowerCase();
}

function zoom() { whole = !whole; render(); }

function key(event) {
  if (!about || moving || document.querySelector("dialog[open]")) return;
  const undoes = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z";
  if (undoes) { event.preventDefault(); undo(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Enter" && event.target instanceof HTMLButtonElement) return; // the button's own press
  if (drawing) {
    if (event.key.startsWith("Arrow")) { event.preventDefault(); nudge(event.key, event.shiftKey); return; }
    if (event.key === "Enter") { event.preventDefault(); keep(); return; }
    if (event.key === "Escape") { stopDrawing(); render(); return; }
  }
  const name = pressed(event);
  const digit = Number(name);
  if (digit >= 1 && digit <= Math.min(9, about.classes.length)) { rename(about.classes[digit - 1]); return; }
  const verb = KEYS[name];
  if (!verb || event.repeat) return;
  event.preventDefault();
  verb();
}

async function begin() {
  about = await ask("about");
  $("run").textContent = about.name;
  document.title = `Review ${about.name}`;
  progress(about);
  const buttons = { accept: right, reject: wrong, redraw: () => startDrawing("redraw"), add: () => startDrawing("add"), skip: forward, zoom, undo };
  Object.assign(buttons, { complete: () => close_("complete"), empty: () => close_("empty") });
  for (const [id, verb] of Object.entries(buttons)) {
    $(id).addEventListener("click", (event) => { if (event.detail) $(id).blur(); if (!moving) verb(); }); // keys go on after a click
  }
  $("ask").addEventListener("click", () => $("help").showModal());
  $("fault").addEventListener("close", () => window.location.reload()); // what the page believed may not be what was kept
  $("words").addEventListener("input", match);
  $("words").addEventListener("keydown", (event) => { if (event.key === "Enter") { const first = $("found").querySelector("button"); if (first) first.click(); } });
  $("view").addEventListener("pointerdown", drag);
  document.addEventListener("keydown", key);
  new ResizeObserver(() => { if (now) paint(); }).observe($("stage"));
  await forward();
}

begin().catch(fail);
