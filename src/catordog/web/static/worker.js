// Predicts photos in a worker of a one-file page: decodes them, runs the networks, and judges.
//
// `runtime` is ONNX Runtime, which the page puts in front of this module.

import { draftFactor, isJpeg, openJpeg } from "/jpeg.js";
import { detectorOf } from "/ood.js";
import { flipped, inputPixels, normalise, reduced } from "/resize.js";
import { softmax } from "/softmax.js";
import { judge } from "/verdict.js";

const STRIP = 256; // rows of a photo that are read at a time; a multiple of every draft factor
const MAX_JPEG = 25e6; // pixels of a JPEG whose coefficients are held in memory
const THUMBNAIL = 320;
const IDLE_MS = 500;
const UNREADABLE = [
  [/^(\xff\xd8\xff|.PNG\r\n|GIF8|RIFF....WEBP)/s, "damaged file, or too large for this browser"],
  [/^....ftyp(hei|hev|mif1|msf1)/s, "HEIC, which only Safari decodes: save it as a JPEG"],
  [/^(II\*\0|MM\0\*)/, "TIFF, which only Safari decodes: save it as a JPEG or PNG"],
  [/^%PDF/, "not a photo (it is a PDF)"],
  [/^PK/, "not a photo (it is a zip archive)"],
  [/^\s*</, "not a photo (it is HTML, XML or SVG)"],
];

let model = null;
let waiting = null; // a promise: what was asked for before
let photos = 0; // that were asked for
const stages = {};
const arrived = {}; // parts of the page, by name: a promise of each, and what resolves it

function part(name) {
  if (!arrived[name]) {
    arrived[name] = {};
    arrived[name].promise = new Promise((resolve) => Object.assign(arrived[name], { resolve }));
  }
  return arrived[name];
}

async function unpacked(name) {
  const packed = await part(name).promise;
  delete arrived[name];
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function start() {
  model = JSON.parse(new TextDecoder().decode(await unpacked("model")));
  Object.assign(runtime.env.wasm, { wasmBinary: await unpacked("runtime"), numThreads: 1, proxy: false });
  runtime.env.logLevel = "error";
  await stage(model.first ? "first" : "large");
  postMessage({ ready: true, pixelsAreAltered: altersPixels() });
  // Start the large network while idle.
  if (model.first) setTimeout(() => photos || stage("large"), IDLE_MS);
}

// The network of a stage, started on its first use.
function stage(name) {
  stages[name] ??= open(name);
  return stages[name];
}

async function open(name) {
  const description = model[name];
  const session = await runtime.InferenceSession.create(await unpacked(name), {
    executionProviders: ["wasm"],
    logSeverityLevel: 3,
  });
  const detector = description.ood && detectorOf(description.ood);
  return { ...description, session, detector };
}

// Named outputs of a network for one photo, with the test-time augmentation.
async function run({ session, outputs, flip, flipBelow, detector, learnt }, pixels, preprocess) {
  const { size } = preprocess;
  const input = normalise(pixels, preprocess);
  const once = async (values) => {
    const tensor = new runtime.Tensor("float32", values, [1, 3, size, size]);
    const results = await session.run({ photos: tensor }, outputs);
    return Object.fromEntries(outputs.map((name) => [name, Array.from(results[name].data)]));
  };
  const found = await once(input);
  if (!flip || !isUnsure(found.logits, flipBelow)) return found;
  if (learnt && detector(found) >= 1) return found; // stays `neither` whatever the flip says
  const other = await once(flipped(input, size));
  for (const name of outputs) found[name] = found[name].map((x, index) => (x + other[name][index]) / 2);
  return found;
}

function isUnsure(logits, below) {
  if (below >= 1) return true;
  return logits.every(Number.isFinite) && Math.max(...softmax(logits)) < below;
}

// Of the first stage where it is sure, and otherwise of the large network.
async function outputOf(photo) {
  if (!model.first) return outputOfStage("large", photo);
  const decodedFirst = photo(model.looks[0].size);
  const smaller = Math.min(decodedFirst.width, decodedFirst.height);
  const again = (near) => (smaller >= near ? decodedFirst : photo(near));
  for (const { size, confidence, ood_score: mostUnlike, neither, scale } of model.looks) {
    const first = await outputOfStage("first", again, size);
    first.logits = Array.from(first.logits, (logit) => Math.fround(logit * Math.fround(scale)));
    const score = first.oodScore ?? Infinity;
    const isNeither = neither && score > mostUnlike && score >= 1 && score < Infinity;
    const isSure = Math.max(...softmax(first.logits, model.first.temperature)) >= confidence;
    if (!isNeither && (score > mostUnlike || !isSure)) continue;
    // The first stage only answers where it sees one class.
    if (model.large.outputs.includes("regions")) first.regions ??= model.classes.map(() => -1);
    return first;
  }
  return outputOfStage("large", again);
}

async function outputOfStage(name, photo, size = model[name].preprocess.size) {
  const network = await stage(name);
  const preprocess = { ...network.preprocess, size };
  const found = await run(network, inputPixels(photo(size), preprocess), preprocess);
  let evidence = found;
  if (network.detector && model.general) {
    const general = await stage("general");
    const pixels = inputPixels(photo(general.preprocess.size), general.preprocess);
    evidence = await run(general, pixels, general.preprocess);
  }
  const oodScore = network.detector ? network.detector(evidence) : null;
  return { logits: found.logits, oodScore, regions: found.regions ?? null };
}

async function predict(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const bitmap = await decoded(file, bytes);
  try {
    const photo = reader(bitmap, bytes);
    const row = judge(await outputOf(photo), model);
    return { row, thumbnail: await thumbnail(bitmap) };
  } finally {
    bitmap.close();
  }
}

async function decoded(file, bytes) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file); // upright, and in sRGB
  } catch {
    throw new Error(reason(bytes));
  }
  if (bitmap.width * bitmap.height <= model.megapixels * 1e6) return bitmap;
  bitmap.close();
  throw new Error(`more than the limit of ${model.megapixels} megapixels`);
}

// Why the browser can't decode a file.
function reason(bytes) {
  if (!bytes.length) return "empty file";
  const start = new TextDecoder("latin1").decode(bytes.subarray(0, 12));
  const [, what] = UNREADABLE.find(([pattern]) => pattern.test(start)) ?? [];
  return what ?? "not a photo, or of a format that this browser can't decode";
}

// A function that reads a photo near a size, as `decode` in catordog/photos/decode.py does: a large
// JPEG at a fraction of its size.
function reader(bitmap, bytes) {
  const read = {};
  let atFraction = null;
  return (near) => {
    const factor = isJpeg(bytes) ? draftFactor(bitmap.width, bitmap.height, near) : 1;
    if (factor > 1) atFraction ??= openedJpeg(bitmap, bytes);
    read[factor] ??= factor > 1 ? atFraction(factor) : readPixels(bitmap, 1);
    return read[factor];
  };
}

// What the browser decodes and `openJpeg` does not is averaged, which is close to what libjpeg does:
// it rounds luma and chroma, so that halves go up as often as down.
function openedJpeg(bitmap, bytes) {
  try {
    if (bitmap.width * bitmap.height <= MAX_JPEG) return openJpeg(bytes);
  } catch {
    // As below.
  }
  return (factor) => readPixels(bitmap, factor);
}

// Pixels on white, each the mean of a block. Read in strips, so that memory stays low.
function readPixels(bitmap, factor) {
  const [width, height] = [bitmap.width, bitmap.height].map((length) => Math.ceil(length / factor));
  const data = new Uint8Array(3 * width * height);
  const canvas = new OffscreenCanvas(bitmap.width, Math.min(STRIP, bitmap.height));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let top = 0; top < bitmap.height; top += STRIP) {
    const rows = Math.min(STRIP, bitmap.height - top);
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(bitmap, 0, -top);
    const pixels = context.getImageData(0, 0, bitmap.width, rows).data;
    const strip = { width: bitmap.width, height: rows, data: withoutAlpha(pixels) };
    const all = [0, 0, strip.width, rows];
    const small = factor === 1 ? strip : reduced(strip, [factor, factor], all, true);
    data.set(small.data, (3 * width * top) / factor);
  }
  return { width, height, data };
}

function withoutAlpha(pixels) {
  const result = new Uint8Array((pixels.length / 4) * 3);
  for (let from = 0, to = 0; from < pixels.length; from += 4, to += 3) {
    result[to] = pixels[from];
    result[to + 1] = pixels[from + 1];
    result[to + 2] = pixels[from + 2];
  }
  return result;
}

function thumbnail(bitmap) {
  const scale = Math.min(1, THUMBNAIL / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((x) => Math.max(1, Math.round(scale * x)));
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.85 });
}

// Whether the browser gives other pixels than were drawn, as some do against fingerprinting.
function altersPixels() {
  const canvas = new OffscreenCanvas(16, 16);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let index = 0; index < 256; index += 1) {
    context.fillStyle = `rgb(${index} ${255 - index} 128)`;
    context.fillRect(index % 16, index >> 4, 1, 1);
  }
  const { data } = context.getImageData(0, 0, 16, 16);
  return data.some((value, at) => value !== [at >> 2, 255 - (at >> 2), 128, 255][at % 4]);
}

async function answer({ data }) {
  if (data.part) {
    part(data.part).resolve(data.bytes);
    return;
  }
  const { id, file } = data;
  photos += 1;
  waiting = waiting.then(async () => {
    try {
      postMessage({ id, ...(await predict(file)) });
    } catch (error) {
      postMessage({ id, error: error.message });
    }
  });
}

self.addEventListener("message", answer);
waiting = start().catch((error) => postMessage({ failed: error.message }));
