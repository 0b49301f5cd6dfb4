// Verdicts in a browser: the twin of `judge` in catordog/confidence/verdict.py. A test compares both.

import { formatPercent, softmax } from "/softmax.js";

const OUTSIDE = Math.log(0.05) / Math.log(0.97);

// What `catordog predict --format jsonl` says of a photo, from a network's raw output.
//
// `output` has `logits`, and where the model has them `oodScore` and `regions`; `model` has
// `classes`, `temperature`, `threshold` and `accept`.
export function judge({ logits, oodScore = null, regions = null }, model) {
  const { classes, temperature, threshold, accept } = model;
  let confidences = softmax(logits, temperature);
  if (classes.length === 1 && oodScore !== null) confidences = [oneClassConfidence(oodScore)];
  const best = logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));
  let verdict = confidences[best] >= threshold ? classVerdict(classes[best]) : "not sure";
  if (oodScore !== null && oodScore > accept) verdict = "neither";
  const others = regions === null || verdict === "neither" || !(regions[best] > 0) ? [] : classes;
  return {
    label: classes[best],
    confidence: confidences[best],
    confidences: byName(classes, confidences),
    logits: byName(classes, logits),
    verdict,
    also: others.filter((_, index) => index !== best && regions[index] > 0),
  };
}

// A row as text: `dog 99.99 %`, or `not sure (dog 57 %)`.
export function words(row) {
  const text = [`${row.label} ${formatPercent(row.confidence)}`, ...(row.also ?? [])].join(", also ");
  return row.verdict === row.label ? text : `${row.verdict} (${text})`;
}

// A pair for each class: an object would put names that are numbers first.
function byName(classes, values) {
  return classes.map((name, index) => [name, values[index]]);
}

function classVerdict(label) {
  return label === "not sure" || label === "neither" ? `class ${label}` : label;
}

function oneClassConfidence(oodScore) {
  return 1 / (1 + 0.01 + 0.99 * OUTSIDE * oodScore ** (OUTSIDE - 1));
}
