"use strict";

// Photos go to /predict one by one, a few at a time; logits come back, and softmax is made here, so
// that the slider can show what a temperature does.

const AT_ONCE = 3;
const get = (id) => document.getElementById(id);
const cards = [];
const waiting = [];
let running = 0;
let model = { temperature: 1, photo_bytes: Infinity };

function softmax(logits, temperature) {
  const scaled = logits.map((x) => x / temperature);
  const most = Math.max(...scaled);
  const powers = scaled.map((x) => Math.exp(x - most));
  const total = powers.reduce((sum, x) => sum + x, 0);
  return powers.map((x) => x / total);
}

// What the others have left: exact where 1 − p would be rounded to 0.
function rest(logits, temperature, place) {
  const scaled = logits.map((x) => (x - logits[place]) / temperature);
  const others = scaled.filter((_, at) => at !== place).reduce((sum, x) => sum + Math.exp(x), 0);
  return others / (1 + others);
}

// No confidence below 1 is shown as 100 %: it gets as many nines as it has.
function percent(p, left) {
  if (left <= 0) return "100 %";
  if (p < 1e-8) return "< 0.000001 %";
  if (p < 0.0095) return `${Number((100 * p).toPrecision(1))} %`;
  if (left >= 0.0095) return `${(100 * p).toFixed(0)} %`;
  const nines = Math.min(14, Math.max(0, Math.ceil(-Math.log10(left)) - 2));
  const shown = Math.floor((1 - left) * 100 * 10 ** nines) / 10 ** nines;
  return `${shown.toFixed(nines)} %`;
}

function temperature() {
  return model.temperature * 10 ** Number(get("temperature").value);
}

function showTemperature() {
  const chosen = temperature();
  const own = Number(get("temperature").value) === 0;
  get("temperature-shown").textContent = chosen.toFixed(2);
  get("temperature-words").textContent = own
    ? "Logits are divided by it before softmax. This is the value at which this model's confidence is true."
    : chosen > model.temperature
      ? "Higher: humbler. The same logits, and less confidence; the likeliest class stays the same."
      : "Lower: bolder. The same logits, and more confidence; the likeliest class stays the same.";
  cards.forEach(showConfidences);
}

function showConfidences({ card, row }) {
  if (!row || row.error) return;
  const names = Object.keys(row.logits);
  const logits = Object.values(row.logits);
  const shares = softmax(logits, temperature());
  names.forEach((name, place) => {
    const bar = card.querySelectorAll(".bar")[place];
    const text = percent(shares[place], rest(logits, temperature(), place));
    bar.querySelector(".fill").style.width = `${100 * shares[place]}%`;
    bar.querySelector(".value").textContent = text;
  });
}

function words(row) {
  const place = Object.keys(row.logits).indexOf(row.label);
  const left = rest(Object.values(row.logits), model.temperature, place);
  const says = `${row.label} ${percent(row.confidence, left)}`;
  return row.verdict === row.label ? says : `${row.verdict} (${says})`;
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
  card.querySelector(".look").remove();
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
  const look = card.querySelector(".look");
  look.addEventListener("click", () => explain(entry, look));
}

async function explain({ card, file, row }, look) {
  const heat = card.querySelector(".heat");
  if (heat.src) {
    heat.hidden = !heat.hidden;
  } else {
    look.disabled = true;
    look.textContent = "looking …";
    try {
      const answer = await fetch("/explain", { method: "POST", body: file });
      if (!answer.ok) throw new Error((await answer.json()).error);
      heat.src = URL.createObjectURL(await answer.blob());
      heat.alt = `what speaks for ${row.label}, in orange, and against it, in purple`;
      heat.hidden = false;
    } catch (error) {
      look.textContent = `that didn't work: ${error.message}`;
      return;
    }
    look.disabled = false;
  }
  card.querySelector(".legend").hidden = heat.hidden;
  look.textContent = heat.hidden ? "where did it look?" : "show the photo";
}

function add(file) {
  const card = get("card").content.firstElementChild.cloneNode(true);
  const photo = card.querySelector(".photo");
  photo.src = URL.createObjectURL(file);
  photo.addEventListener("error", () => photo.remove()); // formats that browsers can't show
  card.querySelector(".name").textContent = file.name;
  card.querySelector("h2").textContent = "looking …";
  const entry = { card, file, row: null };
  cards.push(entry);
  get("results").prepend(card);
  if (file.size > model.photo_bytes) {
    fail(card, `too large: ${(file.size / 2 ** 20).toFixed(0)} MiB, and at most ${(model.photo_bytes / 2 ** 20).toFixed(0)} can be sent`);
    return;
  }
  waiting.push(entry);
  next();
}

async function next() {
  if (running >= AT_ONCE || !waiting.length) return;
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
    fail(entry.card, `that didn't work: ${error.message}`);
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
