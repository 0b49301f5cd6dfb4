// Pixels as catordog/photos makes them: the twin of Pillow's `resize` and `reduce`, and of `Preprocess`
// in catordog/photos/preprocess.py. A test compares them on the same pixels.
//
// An image is { width, height, data } with `data` of red, green, blue for each pixel, 0 to 255.

const PRECISION = 22; // bits after the point of Pillow's weights
const HALF = 1 << (PRECISION - 1);

// A square input of a network, red, green, blue for each pixel.
export function inputPixels(image, { size, resize, resample, mean }) {
  const { width, height } = image;
  if (width === size && height === size) return image.data;
  if (resize === "pad") {
    const scale = size / Math.max(width, height);
    const [wide, high] = [width, height].map((x) => Math.max(1, halfToEven(x * scale)));
    const scaled = resized(image, wide, high, [0, 0, width, height], resample);
    const colour = mean.map((x) => Math.min(255, Math.max(0, halfToEven(255 * x))));
    const left = Math.floor((size - wide) / 2);
    const top = Math.floor((size - high) / 2);
    const square = new Uint8Array(3 * size * size).map((_, index) => colour[index % 3]);
    for (let row = 0; row < high; row += 1) {
      const line = scaled.subarray(3 * row * wide, 3 * (row + 1) * wide);
      square.set(line, 3 * ((top + row) * size + left));
    }
    return square;
  }
  const edge = Math.min(width, height);
  const [left, top] = [(width - edge) / 2, (height - edge) / 2];
  const box = resize === "crop" ? [left, top, left + edge, top + edge] : [0, 0, width, height];
  return resized(image, size, size, box, resample);
}

// A network's input, float32 [1, 3, S, S], from square pixels.
export function normalise(pixels, { size, mean, std }) {
  const area = size * size;
  const result = new Float32Array(3 * area);
  for (let channel = 0; channel < 3; channel += 1) {
    const [middle, spread] = [Math.fround(mean[channel]), Math.fround(std[channel])];
    const levels = new Float32Array(256).map((_, level) =>
      Math.fround(Math.fround(Math.fround(level / 255) - middle) / spread),
    );
    for (let index = 0; index < area; index += 1) {
      result[channel * area + index] = levels[pixels[3 * index + channel]];
    }
  }
  return result;
}

// The horizontal flip of a network's input.
export function flipped(input, size) {
  const result = new Float32Array(input.length);
  for (let start = 0; start < input.length; start += size) {
    result.set(input.slice(start, start + size).reverse(), start);
  }
  return result;
}

function resized(image, wide, high, box, resample) {
  let [source, [left, top, right, bottom]] = [image, box];
  if (resample === "area") {
    const factors = [(right - left) / wide, (bottom - top) / high].map((x) => Math.trunc(x / 1.01) || 1);
    if (Math.max(...factors) > 1) {
      const around = [0.5 * ((right - left) / wide), 0.5 * ((bottom - top) / high)];
      const x = Math.max(0, Math.trunc(left - around[0]));
      const y = Math.max(0, Math.trunc(top - around[1]));
      const end = [
        Math.min(image.width, Math.ceil(right + around[0])),
        Math.min(image.height, Math.ceil(bottom + around[1])),
      ];
      source = reduced(image, factors, [x, y, ...end]);
      [left, right] = [(left - x) / factors[0], (right - x) / factors[0]];
      [top, bottom] = [(top - y) / factors[1], (bottom - y) / factors[1]];
    }
  }
  const filter = resample === "area" ? { support: 1, weight: triangle } : { support: 2, weight: cubic };
  [left, top, right, bottom] = [left, top, right, bottom].map(Math.fround); // as Pillow has them
  const across = { from: left, to: right, count: wide };
  const down = { from: top, to: bottom, count: high };
  // The order of Pillow since version 13: both orders round differently.
  const downFirst = source.height - high > 2 * Math.max(0, source.width - wide);
  if (downFirst) return acrossAll(downAll(source, down, filter), across, filter).data;
  return downAll(acrossAll(source, across, filter), down, filter).data;
}

function acrossAll({ width, height, data }, { from, to, count }, filter) {
  if (count === width && from === 0 && to === width) return { width, height, data };
  const columns = weights(width, from, to, count, filter);
  return { width: count, height, data: stretched(data, height, 3 * width, columns) };
}

function downAll({ width, height, data }, { from, to, count }, filter) {
  if (count === height && from === 0 && to === height) return { width, height, data };
  const rows = weights(height, from, to, count, filter);
  return { width, height: count, data: stretchedDown(data, 3 * width, rows) };
}

// Means of blocks, rounded half up as Pillow does, or to even numbers; those at the edges are smaller.
export function reduced(image, [across, down], [left, top, right, bottom], toEven = false) {
  const width = Math.ceil((right - left) / across);
  const height = Math.ceil((bottom - top) / down);
  const data = new Uint8Array(3 * width * height);
  const sums = new Float64Array(3 * width);
  for (let y = 0; y < height; y += 1) {
    const first = top + y * down;
    const rows = Math.min(down, bottom - first);
    sums.fill(0);
    for (let row = first; row < first + rows; row += 1) {
      let from = 3 * (row * image.width + left);
      for (let x = 0, column = left; column < right; x += 3) {
        const end = Math.min(column + across, right);
        for (; column < end; column += 1, from += 3) {
          sums[x] += image.data[from];
          sums[x + 1] += image.data[from + 1];
          sums[x + 2] += image.data[from + 2];
        }
      }
    }
    for (let x = 0; x < width; x += 1) {
      const n = rows * Math.min(across, right - left - x * across);
      // Pillow multiplies by the inverse, a 32-bit float with 24 bits after the point.
      const inverse = Math.trunc(Math.fround(2 ** 24 / n));
      const half = n >> 1;
      for (let channel = 0; channel < 3; channel += 1) {
        const index = 3 * x + channel;
        data[3 * y * width + index] = toEven
          ? halfToEven(sums[index] / n)
          : Math.floor(((sums[index] + half) * inverse) / 2 ** 24);
      }
    }
  }
  return { width, height, data };
}

// For each new pixel, which old ones it is made of and their weights, as Pillow's integers.
function weights(length, from, to, count, { support, weight }) {
  const scale = Math.fround(to - from) / count;
  const stretch = Math.max(scale, 1);
  const reach = support * stretch;
  return Array.from({ length: count }, (_, index) => {
    const centre = from + (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(length, Math.trunc(centre + reach + 0.5));
    const exact = new Float64Array(end - first).map((__, i) =>
      weight((i + first - centre + 0.5) * (1 / stretch)),
    );
    const total = exact.reduce((sum, x) => sum + x, 0);
    const whole = Int32Array.from(exact, (x) => {
      const scaled = (total === 0 ? x : x / total) * 2 ** PRECISION;
      return Math.trunc(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    });
    return { first, whole };
  });
}

function stretched(data, rows, width, columns) {
  const result = new Uint8Array(3 * rows * columns.length);
  for (let row = 0, to = 0; row < rows; row += 1) {
    for (const { first, whole } of columns) {
      let red = HALF;
      let green = HALF;
      let blue = HALF;
      for (let i = 0, from = row * width + 3 * first; i < whole.length; i += 1, from += 3) {
        const k = whole[i];
        red += data[from] * k;
        green += data[from + 1] * k;
        blue += data[from + 2] * k;
      }
      result[to] = clip(red >> PRECISION);
      result[to + 1] = clip(green >> PRECISION);
      result[to + 2] = clip(blue >> PRECISION);
      to += 3;
    }
  }
  return result;
}

function stretchedDown(data, width, rows) {
  const result = new Uint8Array(width * rows.length);
  const sums = new Int32Array(width);
  rows.forEach(({ first, whole }, row) => {
    sums.fill(HALF);
    for (let i = 0; i < whole.length; i += 1) {
      const k = whole[i];
      for (let x = 0, from = (first + i) * width; x < width; x += 1, from += 1) sums[x] += data[from] * k;
    }
    for (let x = 0, to = row * width; x < width; x += 1, to += 1) result[to] = clip(sums[x] >> PRECISION);
  });
  return result;
}

function clip(value) {
  return value < 0 ? 0 : value > 255 ? 255 : value;
}

function triangle(x) {
  return Math.max(0, 1 - Math.abs(x));
}

function cubic(value) {
  const [a, x] = [-0.5, Math.abs(value)];
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// As Python's `round`.
function halfToEven(x) {
  const low = Math.floor(x);
  if (x - low !== 0.5) return Math.round(x);
  return low % 2 === 0 ? low : low + 1;
}
