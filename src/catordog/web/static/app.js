// Photos go to /predict one by one, a few at a time. Softmax of the raw logits in the answers is
// computed here, so that the slider can show the effect of a temperature.

import { formatPercent, softmax } from "/softmax.js";

const MAX_REQUESTS = 3;
const get = (id) => document.getElementById(id);
const cards = [];
const waiting = [];
let running = 0;
let model = { temperature: 1, photo_bytes: Infinity };

function temperature() {
  return model.temperature * 10 ** Number(get("temperature").value);
}

function showTemperature() {
  const chosen = temperature();
  const own = Number(get("temperature").value) === 0;
  get("temperature-shown").textContent = chosen.toPrecision(3);
  get("temperature-words").textContent = own
    ? "Softmax divides logits by the temperature. At this value the model is calibrated."
    : chosen > model.temperature
      ? "Higher: softer. The same logits with less confidence; the predicted class stays the same."
      : "Lower: sharper. The same logits with more confidence; the predicted class stays the same.";
  cards.forEach(showConfidences);
}

function showConfidences({ card, row }) {
  if (!row || row.error) return;
  const bars = card.querySelectorAll(".bar");
  softmax(Object.values(row.logits), temperature()).forEach((confidence, index) => {
    bars[index].querySelector(".fill").style.width = `${100 * confidence}%`;
    bars[index].querySelector(".value").textContent = formatPercent(confidence);
  });
}

function words(row) {
  const text = [`${row.label} ${formatPercent(row.confidence)}`, ...(row.also ?? [])].join(", also ");
  return row.verdict === row.label ? text : `${row.verdict} (${text})`;
}

function element(kind, name, text) {
  const made = document.createElement(kind);
  made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

function fail(card, reason) {
  card.classList.add("wrong");
  card.querySelector("h2").textContent = reason;
  card.querySelector(".explain").remove();
}

function fill(entry) {
  const { card, row } = entry;
  if (row.error) {
    fail(card, `can't be read: ${row.error}`);
    return;
  }
  card.querySelector("h2").textContent = words(row);
  card.querySelector(".photo").alt = words(row);
  for (const [name, logit] of Object.entries(row.logits)) {
    const bar = element("div", "bar");
    const track = element("div", "track");
    track.append(element("div", "fill"));
    bar.append(element("span", "class", name), track, element("span", "value"));
    bar.append(element("span", "logit small", `logit ${logit.toFixed(3)}`));
    card.querySelector(".bars").append(bar);
  }
  showConfidences(entry);
  const button = card.querySelector(".explain");
  button.addEventListener("click", () => explain(entry, button));
}

async function explain({ card, file, row }, button) {
  const heat = card.querySelector(".heat");
  if (heat.src) {
    heat.hidden = !heat.hidden;
  } else {
    button.disabled = true;
    button.textContent = "explaining …";
    try {
      const answer = await fetch("/explain", { method: "POST", body: file });
      if (!answer.ok) throw new Error((await answer.json()).error);
      heat.src = URL.createObjectURL(await answer.blob());
      heat.alt = `heat map: orange regions speak for ${row.label}, purple ones against it`;
      heat.hidden = false;
    } catch (error) {
      button.textContent = `failed: ${error.message}`;
      return;
    }
    button.disabled = false;
  }
  card.querySelector(".legend").hidden = heat.hidden;
  button.textContent = heat.hidden ? "explain" : "hide explanation";
}

function add(file) {
  const card = get("card").content.firstElementChild.cloneNode(true);
  const photo = card.querySelector(".photo");
  photo.src = URL.createObjectURL(file);
  photo.addEventListener("error", () => photo.remove()); // formats that browsers can't show
  card.querySelector(".name").textContent = file.name;
  card.querySelector("h2").textContent = "predicting …";
  const entry = { card, file, row: null };
  cards.push(entry);
  get("results").prepend(card);
  if (file.size > model.photo_bytes) {
    const mebibytes = (bytes) => (bytes / 2 ** 20).toFixed(0);
    fail(card, `too large: ${mebibytes(file.size)} MiB; the limit is ${mebibytes(model.photo_bytes)}`);
    return;
  }
  waiting.push(entry);
  next();
}

async function next() {
  if (running >= MAX_REQUESTS || !waiting.length) return;
  running += 1;
  const entry = waiting.shift();
  try {
    const body = new FormData();
    body.append("files", entry.file, entry.file.name || "photo");
    const answer = await fetch("/predict", { method: "POST", body });
    if (answer.status === 429 || answer.status === 503) {
      waiting.unshift(entry);
      await new Promise((done) => setTimeout(done, 1000));
    } else {
      const found = await answer.json();
      if (!answer.ok) throw new Error(found.error);
      entry.row = found[0];
      fill(entry);
    }
  } catch (error) {
    fail(entry.card, `failed: ${error.message}`);
  }
  running -= 1;
  next();
}

function listen() {
  const drop = get("drop");
  for (const id of ["files", "camera"]) {
    get(id).addEventListener("change", (event) => {
      [...event.target.files].forEach(add);
      event.target.value = "";
    });
  }
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    [...event.dataTransfer.files].forEach(add);
  });
  document.addEventListener("paste", (event) => {
    [...event.clipboardData.files].forEach(add);
  });
  get("temperature").addEventListener("input", showTemperature);
  get("reset").addEventListener("click", () => {
    get("temperature").value = 0;
    showTemperature();
  });
}

listen();
fetch("/healthz")
  .then((answer) => answer.json())
  .then((found) => {
    model = found;
    showTemperature();
  });
