// Softmax and its text in a browser: the twins of `softmax` and `format_percent` in
// catordog/confidence/softmax.py. A test compares both on the same inputs.

// Confidences from raw logits; a temperature above 1 softens them, below 1 sharpens them.
export function softmax(logits, temperature = 1) {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const powers = logits.map((x) => Math.exp((x - largest) / temperature));
  const total = powers.reduce((sum, x) => sum + x, 0);
  return powers.map((x) => x / total);
}

// A confidence as percent, with as many nines as it has: no confidence reads as certain.
export function formatPercent(confidence) {
  if (confidence >= 1) return "> 99.9999999999999 %";
  if (confidence < 1e-15) return "< 0.0000000000001 %";
  const exact = percentOf(confidence);
  if (confidence < 0.0095) return `${rounded(exact, exact.leading)} %`;
  if (confidence < 0.9) return `${rounded(exact, 0)} %`;
  const nines = Math.floor(-Math.log10(1 - confidence) + 1e-9);
  return `${rounded(exact, nines > 1 ? 1 - nines : 0, true)} %`;
}

// 100 × the shortest decimal that stands for a number, as digits × 10^exponent. Computed without
// floating point, which could round a confidence up to 100.
function percentOf(confidence) {
  const [mantissa, power] = confidence.toExponential().split("e");
  const digits = mantissa.replace(".", "");
  const leading = Number(power) + 2;
  return { digits: BigInt(digits), exponent: leading - (digits.length - 1), leading };
}

// A decimal to a multiple of 10^step, half to even or down, without trailing zeros.
function rounded({ digits, exponent }, step, down = false) {
  let count = digits * 10n ** BigInt(Math.max(0, exponent - step));
  if (step > exponent) {
    const divisor = 10n ** BigInt(step - exponent);
    const rest = 2n * (digits % divisor);
    count = digits / divisor;
    if (!down && (rest > divisor || (rest === divisor && count % 2n === 1n))) count += 1n;
  }
  if (step >= 0) return String(count * 10n ** BigInt(step));
  const text = String(count).padStart(1 - step, "0");
  return `${text.slice(0, step)}.${text.slice(step)}`.replace(/\.?0+$/, "");
}
