// The one-file page: photos go to a worker of this page, and nothing goes anywhere else.

import { addCard, failCard, fillCard, get, listen, useTemperature } from "/cards.js";
import { words } from "/verdict.js";

const ESCAPE = 0xe000;
const entries = new Map(); // of photos, by number
const rows = []; // for the CSV file: of a name, and a row or an error
let predicted = 0;
let worker = null;
const model = JSON.parse(get("shown").textContent);

// The bytes of a part of this page. Two are in each character; those that HTML would change follow
// ESCAPE, with their highest bit flipped.
function bytesOf(id) {
  const element = get(id);
  const text = element.textContent;
  element.remove();
  const units = new Uint16Array(text.length);
  let n = 0;
  for (let index = 0; index < text.length; index += 1) {
    let unit = text.charCodeAt(index);
    if (unit === ESCAPE) {
      index += 1;
      unit = text.charCodeAt(index) ^ 0x8000;
    }
    units[n] = unit;
    n += 1;
  }
  return units.buffer.slice(0, Number(element.dataset.size));
}

function start() {
  const source = new Blob([get("worker").textContent], { type: "text/javascript" });
  worker = new Worker(URL.createObjectURL(source));
  worker.addEventListener("message", ({ data }) => answer(data));
  worker.addEventListener("error", (event) => stop(event.message ?? "workers are not allowed"));
  for (const { id } of [...document.querySelectorAll("script[data-size]")]) {
    const bytes = bytesOf(id);
    worker.postMessage({ part: id, bytes }, [bytes]);
  }
}

function stop(reason) {
  status(`This browser can't run the model: ${reason}. A current Chrome, Edge, Firefox or Safari can.`);
  get("status").classList.add("wrong");
}

function status(text) {
  get("status").textContent = text;
}

function answer({ ready, failed, pixelsAreAltered, id, row, thumbnail, error }) {
  if (failed !== undefined) {
    stop(failed);
  } else if (ready) {
    get("altered").hidden = !pixelsAreAltered;
    if (!entries.size) status("Ready.");
  } else {
    const entry = entries.get(id);
    entries.delete(id);
    predicted += 1;
    rows[id] = { name: entry.name, row, error };
    if (error === undefined) show(entry, row, thumbnail);
    else failCard(entry, `can't be read: ${error}`);
    report(entry.name, row, error);
    get("csv").disabled = entries.size > 0;
  }
}

function show(entry, row, thumbnail) {
  const photo = entry.card.querySelector(".photo");
  photo.src = URL.createObjectURL(thumbnail);
  photo.hidden = false;
  fillCard(entry, words(row), row.logits, row.confidence);
}

// What a screen reader says: the verdict of a single photo, or how many have which.
function report(name, row, error) {
  if (entries.size) {
    status(`${predicted} of ${predicted + entries.size} photos`);
  } else if (rows.length === 1) {
    status(`${name}: ${error === undefined ? words(row) : `can't be read: ${error}`}`);
  } else {
    const counts = new Map();
    for (const each of rows) {
      const verdict = each.row?.verdict ?? "unreadable";
      counts.set(verdict, (counts.get(verdict) ?? 0) + 1);
    }
    const parts = [...counts].map(([verdict, n]) => `${n} ${verdict}`);
    status(`${rows.length} photos: ${parts.join(", ")}`);
  }
}

function add(file) {
  const id = rows.length;
  const name = file.name || "photo";
  rows.push(null);
  const entry = Object.assign(addCard(name), { name });
  entry.card.querySelector(".photo").hidden = true;
  entries.set(id, entry);
  get("csv").disabled = true;
  worker.postMessage({ id, file });
}

// The rows of `catordog predict --format csv`.
function csv() {
  const columns = [
    ...["path", "label", "confidence"],
    ...model.classes.map((name) => `confidence_${name}`),
    ...model.classes.map((name) => `logit_${name}`),
    ...["verdict", ...(model.also ? ["also"] : []), "error"],
  ];
  const lines = rows.map(({ name, row, error }) => {
    const also = model.also ? [safe((row?.also ?? []).join("; "))] : [];
    const numbers = row
      ? [row.confidence, ...row.confidences.map(([, x]) => x), ...row.logits.map(([, x]) => x)]
      : new Array(1 + 2 * model.classes.length).fill("");
    const texts = [row?.verdict ?? "", ...also, error ?? ""].map(safe);
    return [/^[=+\-@\t\r]/.test(name) ? `./${name}` : name, safe(row?.label ?? ""), ...numbers, ...texts];
  });
  return [columns, ...lines].map((cells) => `${cells.map(quoted).join(",")}\n`).join("");
}

function safe(text) {
  return /^[=+\-@\t\r]/.test(text) ? `'${text}` : text; // spreadsheets would run it
}

function quoted(cell) {
  return /[",\r\n]/.test(cell) ? `"${String(cell).replaceAll('"', '""')}"` : String(cell);
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = "predictions.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// A phone opens its camera for the file input; elsewhere the page shows the picture itself.
async function openCamera(event) {
  if (matchMedia("(pointer: coarse)").matches || !navigator.mediaDevices?.getUserMedia) return;
  event.preventDefault();
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    status(`No camera: ${error.message}`);
    return;
  }
  const [dialog, video] = [get("camera-dialog"), get("video")];
  video.srcObject = stream;
  dialog.addEventListener(
    "close",
    async () => {
      if (dialog.returnValue === "take") await takePicture(video);
      stream.getTracks().forEach((track) => track.stop());
      video.srcObject = null;
    },
    { once: true },
  );
  dialog.returnValue = "";
  dialog.showModal();
}

async function takePicture(video) {
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  const picture = await canvas.convertToBlob({ type: "image/png" });
  add(new File([picture], `camera ${rows.length + 1}.png`, { type: picture.type }));
}

useTemperature(model.temperature, model.classes);
try {
  start();
  listen(add);
  get("csv").addEventListener("click", save);
  get("camera").addEventListener("click", openCamera);
} catch (error) {
  stop(error.message);
}
