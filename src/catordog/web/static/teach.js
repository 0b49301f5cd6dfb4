// Photos go to /teach/photos, which keeps their features in a session of this page. After each
// change, the server learns from all of them. Reloading or closing the page ends the session.

import { formatPercent } from "/softmax.js";

const MAX_REQUESTS = 3;
const TESTED_AGAIN = 6; // photos that each new model predicts again
const SETTLE = 300; // milliseconds without a change, before it learns
const NO_PHOTOS = "It learns as soon as there are photos.";
const get = (id) => document.getElementById(id);
const classes = []; // { group, card, photos: [{ id, item, url }] }
const tested = []; // { file, card }, the newest first
const waiting = [];
let running = 0;
let session = null;
let timer = 0;
let learning = false;
let changed = false;

function element(kind, name, text) {
  const made = document.createElement(kind);
  made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

function pause(milliseconds) {
  return new Promise((done) => setTimeout(done, milliseconds));
}

// A request of this session; it waits where the server is busy.
async function ask(path, options = {}, busy = () => {}) {
  for (;;) {
    const headers = session ? { "X-Catordog-Session": session.session } : {};
    const answer = await fetch(path, { ...options, headers });
    if (answer.status !== 429 && answer.status !== 503) {
      if (!answer.ok) throw new Error((await answer.json()).error);
      return answer;
    }
    busy();
    await pause(1000);
  }
}

// Work on photos, a few at a time, in order.
function queue(work) {
  waiting.push(work);
  next();
}

async function next() {
  if (running >= MAX_REQUESTS || !waiting.length || !session) return;
  running += 1;
  await waiting.shift()();
  running -= 1;
  next();
}

function form(file) {
  const body = new FormData();
  body.append("files", file, file.name || "photo");
  return body;
}

function problem(owner, reason) {
  const line = owner.card.querySelector(".problem");
  line.textContent = reason;
  line.hidden = !reason;
}

function count(owner) {
  const n = owner.photos.filter((photo) => photo.id).length;
  owner.card.querySelector(".count").textContent = n === 1 ? "1 photo" : `${n} photos`;
}

function picture(url, name) {
  const image = element("img", "");
  image.src = url;
  image.alt = name;
  image.addEventListener("error", () => image.replaceWith(name)); // formats browsers can't show
  return image;
}

function addPhoto(owner, file) {
  if (session && file.size > session.photo_bytes) {
    problem(owner, `${file.name}: over ${(session.photo_bytes / 2 ** 20).toFixed(0)} MiB`);
    return;
  }
  const url = URL.createObjectURL(file);
  const button = element("button", "waiting");
  button.type = "button";
  button.title = `remove ${file.name}`;
  button.setAttribute("aria-label", `remove ${file.name}`);
  button.append(picture(url, file.name));
  const item = element("li", "");
  item.append(button);
  owner.card.querySelector(".photos").append(item);
  const photo = { id: null, item, url, gone: false };
  owner.photos.push(photo);
  button.addEventListener("click", () => removePhoto(owner, photo));
  queue(async () => {
    if (photo.gone) return;
    try {
      const answer = await ask(`/teach/photos?group=${owner.group}`, {
        method: "POST",
        body: form(file),
      });
      const [row] = await answer.json();
      if (row.error) throw new Error(row.error);
      photo.id = row.id;
      button.classList.remove("waiting");
      if (photo.gone) forget([photo]);
    } catch (error) {
      problem(owner, `${file.name}: ${error.message}`);
      drop(owner, photo);
    }
    count(owner);
    change();
  });
}

function drop(owner, photo) {
  photo.gone = true;
  photo.item.remove();
  URL.revokeObjectURL(photo.url);
  owner.photos = owner.photos.filter((each) => each !== photo);
}

function forget(photos) {
  const ids = photos.map((photo) => photo.id).filter(Boolean);
  if (!ids.length) return;
  ask(`/teach/photos?photo=${ids.join(",")}`, { method: "DELETE" }).then(change, (error) => {
    if (error instanceof TypeError) setTimeout(forget, 1000, photos); // no network: the server has them
    else change();
  });
}

function removePhoto(owner, photo) {
  drop(owner, photo);
  forget([photo]);
  count(owner);
}

function addClass() {
  if (session && classes.length >= session.classes) return;
  const card = get("class").content.firstElementChild.cloneNode(true);
  const group = classes.length ? Math.max(...classes.map((each) => each.group)) + 1 : 0;
  const owner = { group, card, photos: [] };
  classes.push(owner);
  card.querySelector(".name").value = `class ${group + 1}`;
  card.querySelector(".name").addEventListener("input", change);
  listen(card, [".files", ".camera"], (file) => {
    problem(owner, "");
    addPhoto(owner, file);
  });
  card.querySelector(".remove").addEventListener("click", () => {
    classes.splice(classes.indexOf(owner), 1);
    const photos = [...owner.photos];
    photos.forEach((photo) => drop(owner, photo));
    card.remove();
    forget(photos);
    change();
  });
  get("classes").append(card);
  count(owner);
  return owner;
}

// Files that are chosen in an area, or dropped on it.
function listen(area, inputs, each) {
  for (const selector of inputs) {
    area.querySelector(selector).addEventListener("change", (event) => {
      [...event.target.files].forEach(each);
      event.target.value = "";
    });
  }
  area.addEventListener("dragover", (event) => {
    event.preventDefault();
    area.classList.add("over");
  });
  area.addEventListener("dragleave", () => area.classList.remove("over"));
  area.addEventListener("drop", (event) => {
    event.preventDefault();
    area.classList.remove("over");
    [...event.dataTransfer.files].forEach(each);
  });
}

function change() {
  changed = true;
  clearTimeout(timer);
  timer = setTimeout(learn, SETTLE);
}

async function learn() {
  if (learning) return;
  learning = true;
  while (changed) {
    changed = false;
    const used = classes.filter((owner) => owner.photos.some((photo) => photo.id));
    if (!used.length) {
      show(null, NO_PHOTOS);
      continue;
    }
    const names = used.map((owner) => [owner.group, owner.card.querySelector(".name").value.trim()]);
    try {
      const body = JSON.stringify({ classes: Object.fromEntries(names) });
      report(await (await ask("/teach/learn", { method: "POST", body })).json());
    } catch (error) {
      show(null, error.message);
    }
  }
  learning = false;
}

function show(found, details, title = "No model yet") {
  get("accuracy").textContent = title;
  get("details").textContent = details;
  get("test").hidden = get("take").hidden = !found;
  if (!found) get("hardest").hidden = true;
}

const percent = (fraction) => `${(100 * fraction).toFixed(1)} %`;

function report(found) {
  const names = Object.keys(found.classes);
  if (names.length === 1) {
    show(found, "One class: it tells its photos from everything else.", `${names[0]}, or neither`);
  } else if (found.accuracy === null) {
    show(found, "It takes two different photos of each class.", "Accuracy unknown yet");
  } else {
    const [low, high] = found.interval.map(percent);
    const helps = found.twice !== null && found.twice - found.accuracy >= 0.003;
    const more = helps ? ` Twice as many photos: about ${percent(found.twice)}.` : "";
    const few = Math.min(...Object.values(found.classes)) < 5 ? " Few photos: a rough figure." : "";
    show(
      found,
      `On photos that it has not seen, by cross-validation; 95 % interval ${low} to ${high}.${more}${few}`,
      `${percent(found.accuracy)} right`,
    );
  }
  tested.slice(0, TESTED_AGAIN).forEach(predict);
  for (const { file, card } of tested.slice(TESTED_AGAIN)) {
    card.querySelector(".name").textContent = `${file.name} (by an earlier model)`;
  }
  const list = get("hardest").querySelector(".photos");
  const photoOf = new Map(classes.flatMap((owner) => owner.photos.map((photo) => [photo.id, photo])));
  const hard = found.hardest.filter((each) => photoOf.has(each.id));
  list.replaceChildren(
    ...hard.map((each) => {
      const item = element("li", "");
      const words = `looks like ${each.predicted}; confidence in its class ${formatPercent(each.confidence)}`;
      const button = element("button", "");
      button.type = "button";
      button.title = words;
      button.append(picture(photoOf.get(each.id).url, words));
      button.addEventListener("click", () => {
        const own = photoOf.get(each.id).item;
        own.scrollIntoView({ block: "center" });
        own.querySelector("button").focus();
      });
      item.append(button);
      return item;
    }),
  );
  get("hardest").hidden = !hard.length;
}

function words(row) {
  const text = `${row.label} ${formatPercent(row.confidence)}`;
  return row.verdict === row.label ? text : `${row.verdict} (${text})`;
}

function testPhoto(file) {
  const card = get("card").content.firstElementChild.cloneNode(true);
  card.querySelector("figure").replaceChildren(picture(URL.createObjectURL(file), file.name));
  card.querySelector(".name").textContent = file.name;
  card.querySelector("h2").textContent = "predicting …";
  get("results").prepend(card);
  tested.unshift({ file, card });
  predict(tested[0]);
}

function predict({ file, card }) {
  queue(async () => {
    try {
      const answer = await ask("/teach/predict", { method: "POST", body: form(file) });
      const [row] = await answer.json();
      if (row.error) throw new Error(`can't be read: ${row.error}`);
      card.classList.remove("wrong");
      card.querySelector("h2").textContent = words(row);
      card.querySelector(".bars").replaceChildren(
        ...Object.entries(row.confidences).map(([name, value]) => bar(name, value, row.logits[name])),
      );
    } catch (error) {
      card.classList.add("wrong");
      card.querySelector("h2").textContent = error.message;
    }
  });
}

function bar(name, confidence, logit) {
  const made = element("div", "bar");
  const track = element("div", "track");
  const fill = element("div", "fill");
  fill.style.width = `${100 * confidence}%`;
  track.append(fill);
  made.append(element("span", "class", name), track);
  made.append(element("span", "value", formatPercent(confidence)));
  made.append(element("span", "logit small", `logit ${logit.toFixed(3)}`));
  return made;
}

async function download() {
  try {
    const file = await (await ask("/teach/model")).blob();
    const link = element("a", "");
    link.href = URL.createObjectURL(file);
    link.download = "taught.onnx";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } catch (error) {
    show(null, error.message);
  }
}

async function start() {
  try {
    const busy = () => show(null, "The server has as many visitors as it can take. This page waits.");
    session = await (await ask("/teach/session", { method: "POST" }, busy)).json();
    show(null, NO_PHOTOS);
  } catch (error) {
    show(null, error.message);
    return;
  }
  next();
}

addClass();
addClass();
get("add-class").addEventListener("click", () => addClass()?.card.querySelector(".name").focus());
listen(get("test"), ["#test-files", "#test-camera"], testPhoto);
get("download").addEventListener("click", download);
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => event.preventDefault());
window.addEventListener("pagehide", () => {
  if (!session) return;
  const headers = { "X-Catordog-Session": session.session };
  fetch("/teach/session", { method: "DELETE", keepalive: true, headers });
});
window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload(); // its session has ended
});
start();
