// Ood scores in a browser: the twins of the detectors in catordog/confidence. A test compares both.

import { softmax } from "/softmax.js";

const LEAST_WEIGHT = 1e-3;
const NEIGHBOUR_WEIGHT = 0.6;
const LENIENCE = 2;

// What takes a network's outputs for one photo, arrays of numbers by name, and gives its score, 0 to
// 1. `stored` is what a detector's `to_dict` returns.
export function detectorOf(stored) {
  const bank = stored.bank === undefined ? null : rowsOf(stored);
  if (stored.kind === "output") return ({ ood }) => levelOf(stored.quantiles, ood[0]);
  if (stored.kind === "general") {
    const whole = new Uint16Array(bytesOf(stored.weights).buffer);
    const weights = Array.from(whole, (x) => Math.max(x / 65535, LEAST_WEIGHT));
    const own = ({ features, concepts }) => general(stored, weights, bank, features, concepts);
    return stored.specialty ? within(stored.specialty, own) : own;
  }
  return ({ features }) => levelOf(stored.distances, 1 - nearest(bank, unit(roots(features))));
}

function general(stored, weights, bank, features, concepts) {
  const shown = softmax(Array.from(concepts));
  const evidence = Math.log(shown.reduce((sum, p, index) => sum + p * weights[index], 0));
  let distance = (stored.concepts[0] - evidence) / stored.concepts[1];
  if (bank.length) {
    const mean = concepts.reduce((sum, x) => sum + x, 0) / concepts.length;
    const joined = [...unit(roots(features)), ...unit(Array.from(concepts, (x) => x - mean))];
    const similar = nearest(bank, joined.map((x) => x / Math.SQRT2));
    distance += (NEIGHBOUR_WEIGHT * (stored.neighbours[0] - similar)) / stored.neighbours[1];
  }
  const { body, tail_from: tailFrom, tail } = stored;
  const last = body.length - 1;
  if (distance > body[last]) return 1 - (1 - tailFrom) * Math.exp(-(distance - body[last]) / tail);
  if (distance <= body[0]) return 0;
  const above = body.findIndex((x) => x > distance);
  if (above < 0) return tailFrom;
  const part = (distance - body[above - 1]) / (body[above] - body[above - 1]);
  return (tailFrom * (above - 1 + part)) / last;
}

// A general score where a photo has to belong to what the backbone knows best, too.
function within({ weight, steps, bias, output, quantiles }, own) {
  const weights = new Int8Array(bytesOf(weight).buffer);
  return (found) => {
    let raw = 0;
    for (let unit = 0; unit < bias.length; unit += 1) {
      let sum = 0;
      for (let row = 0; row < found.features.length; row += 1) {
        sum += found.features[row] * weights[row * bias.length + unit];
      }
      raw += output[unit] * Math.max(sum * steps[unit] + bias[unit], 0);
    }
    const lenient = Math.max(1 - LENIENCE * (1 - own(found)), 0);
    return Math.max(lenient, levelOf(quantiles, raw));
  };
}

// The fraction of calibration photos below a value, from their quantiles.
function levelOf(quantiles, value) {
  const rank = quantiles.filter((x) => x <= value).length;
  if (rank === 0) return 0;
  const n = quantiles.length;
  return n === 513 ? rank / n : 1 - (1 - (rank - 1) / (n - 1)) ** 3;
}

function rowsOf({ bank, photos, step }) {
  const steps = new Int8Array(bytesOf(bank).buffer);
  const width = photos ? steps.length / photos : 0;
  return Array.from({ length: photos }, (_, row) =>
    Float32Array.from(steps.subarray(row * width, (row + 1) * width), (x) => x * step),
  );
}

function nearest(bank, vector) {
  return bank.reduce((most, row) => {
    let sum = 0;
    for (let index = 0; index < row.length; index += 1) sum += row[index] * vector[index];
    return Math.max(most, sum);
  }, -Infinity);
}

function roots(features) {
  return Array.from(features, (x) => Math.sign(x) * Math.sqrt(Math.abs(x)));
}

function unit(vector) {
  const norm = Math.sqrt(vector.reduce((sum, x) => sum + x * x, 0)) + 1e-12;
  return vector.map((x) => x / norm);
}

function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}
