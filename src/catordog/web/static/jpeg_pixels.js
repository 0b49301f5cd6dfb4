// Makes pixels of a JPEG's coefficients at a fraction of its size, with the arithmetic of libjpeg:
// jidctred.c, jidctint.c, jdsample.c and jdcolor.c. A test compares them with Pillow's `draft`.

// Pixels at 1/2, 1/4 or 1/8 of a JPEG's size, upright: { width, height, data } with `data` of red,
// green, blue for each pixel.
export function pixelsAt(factor, { width, height, components }, orientation) {
  const [luma] = components;
  const both = luma.across === 2 && luma.down === 2;
  const size = 8 / factor; // of a block
  const [wide, high] = [Math.ceil(width / factor), Math.ceil(height / factor)];
  const [y, cb, cr] = components.map((component) => {
    if (component === luma || both) return samples(component, component === luma ? size : 2 * size, wide, high);
    // Chroma that is halved in one direction is made smaller as luma is, and then enlarged.
    const [cols, rows] = [Math.ceil(wide / luma.across), Math.ceil(high / luma.down)];
    const small = samples(component, size, cols, rows);
    if (luma.across === 2) return doubled(small, rows, [cols, wide], 1, [cols, wide], size > 1 && cols > 2);
    return luma.down === 2 ? doubled(small, cols, [rows, high], cols, [1, 1], size > 1) : small;
  });
  const data = new Uint8ClampedArray(3 * wide * high);
  for (let i = 0; i < y.length; i += 1) {
    const [blue, red] = cb ? [cb[i] - 128, cr[i] - 128] : [0, 0];
    data[3 * i] = y[i] + ((91881 * red + 32768) >> 16);
    data[3 * i + 1] = y[i] + ((-22554 * blue - 46802 * red + 32768) >> 16);
    data[3 * i + 2] = y[i] + ((116130 * blue + 32768) >> 16);
  }
  return upright({ width: wide, height: high, data }, orientation);
}

// Samples of a component, of whose blocks `size` × `size` are made.
function samples({ stride, coefficients, quantiser }, size, wide, high) {
  const result = new Uint8ClampedArray(wide * high);
  const [block, between] = [new Int32Array(64), new Int32Array(64)];
  const transform = { 1: one, 2: two, 4: four, 8: eight }[size];
  const bits = { 1: 3, 2: 20, 4: 19, 8: 18 }[size];
  for (let top = 0; top < high; top += size) {
    for (let left = 0; left < wide; left += size) {
      const from = 64 * ((top / size) * stride + left / size);
      for (let i = 0; i < 64; i += 1) block[i] = coefficients[from + i] * quantiser[i];
      if (size === 1) between[0] = block[0];
      else for (let x = 0; x < 8; x += 1) transform(block, x, 8, between, x, 8, { 2: 13, 4: 12, 8: 11 }[size]);
      const [rows, columns] = [Math.min(size, high - top), Math.min(size, wide - left)];
      for (let row = 0; row < rows; row += 1) {
        transform(between, 8 * row, 1, block, 0, 1, bits);
        const to = (top + row) * wide + left;
        for (let x = 0; x < columns; x += 1) result[to + x] = block[x] + 128;
      }
    }
  }
  return result;
}

// Inverse transforms of eight coefficients, `step` apart, to 1, 2, 4 or 8 values: means of the eight
// of the full transform. The integers are cosines with 13 bits after the point.

function one(from, at, step, to, place, next, bits) {
  to[place] = descaled(from[at], bits);
}

function two(from, at, step, to, place, next, bits) {
  const even = from[at] << 15;
  const odd =
    29692 * from[at + step] - 10426 * from[at + 3 * step] + 6967 * from[at + 5 * step] - 5906 * from[at + 7 * step];
  to[place] = descaled(even + odd, bits);
  to[place + next] = descaled(even - odd, bits);
}

function four(from, at, step, to, place, next, bits) {
  const [b, d, f, h] = [from[at + step], from[at + 3 * step], from[at + 5 * step], from[at + 7 * step]];
  const even = from[at] << 14;
  const half = 15137 * from[at + 2 * step] - 6270 * from[at + 6 * step];
  const inner = 8697 * b - 17799 * d + 11893 * f - 1730 * h;
  const outer = 20995 * b + 7373 * d - 4926 * f - 4176 * h;
  to[place] = descaled(even + half + outer, bits);
  to[place + next] = descaled(even - half + inner, bits);
  to[place + 2 * next] = descaled(even - half - inner, bits);
  to[place + 3 * next] = descaled(even + half - outer, bits);
}

function eight(from, at, step, to, place, next, bits) {
  const [a, b, c, d] = [from[at], from[at + step], from[at + 2 * step], from[at + 3 * step]];
  const [e, f, g, h] = [from[at + 4 * step], from[at + 5 * step], from[at + 6 * step], from[at + 7 * step]];
  const turned = 4433 * (c + g);
  const [sum, difference] = [(a + e) << 13, (a - e) << 13];
  const [high, low] = [turned + 6270 * c, turned - 15137 * g];
  const all = 9633 * (b + d + f + h);
  const [z1, z2] = [-7373 * (h + b), -20995 * (f + d)];
  const [z3, z4] = [all - 16069 * (h + d), all - 3196 * (f + b)];
  const even = [sum + high, difference + low, difference - low, sum - high];
  const odd = [12299 * b + z1 + z4, 25172 * d + z2 + z3, 16819 * f + z2 + z4, 2446 * h + z1 + z3];
  for (let i = 0; i < 4; i += 1) {
    to[place + i * next] = descaled(even[i] + odd[i], bits);
    to[place + (7 - i) * next] = descaled(even[i] - odd[i], bits);
  }
}

function descaled(value, bits) {
  return (value + (1 << (bits - 1))) >> bits;
}

// Twice as many samples along each of `lines` lines, or one less: from `count` to `length`. In a line they
// are `step` apart, before as after; lines are as far apart as the two numbers of `pitch` say.
function doubled(data, lines, [count, length], step, pitch, smooth) {
  const result = new Uint8Array(lines * length);
  for (let line = 0; line < lines; line += 1) {
    const [from, to] = [line * pitch[0], line * pitch[1]];
    for (let i = 0; i < length; i += 1) {
      const [place, later] = [i >> 1, i & 1];
      const near = data[from + place * step];
      const far = data[from + Math.min(count - 1, Math.max(0, place + (later ? 1 : -1))) * step];
      result[to + i * step] = smooth ? (3 * near + far + 1 + later) >> 2 : near;
    }
  }
  return result;
}

// As EXIF's orientation says: 2 to 4 mirror or turn by half, 5 to 8 also swap both axes.
function upright({ width, height, data }, orientation) {
  if (!(orientation > 1 && orientation <= 8)) return { width, height, data };
  const swapped = orientation >= 5;
  const fromRight = [2, 3, 7, 8].includes(orientation);
  const fromBottom = [3, 4, 6, 7].includes(orientation);
  const [wide, high] = swapped ? [height, width] : [width, height];
  const result = new Uint8ClampedArray(data.length);
  for (let y = 0, to = 0; y < high; y += 1) {
    for (let x = 0; x < wide; x += 1, to += 3) {
      const [column, row] = swapped ? [y, x] : [x, y];
      const from = 3 * ((fromBottom ? height - 1 - row : row) * width + (fromRight ? width - 1 - column : column));
      result[to] = data[from];
      result[to + 1] = data[from + 1];
      result[to + 2] = data[from + 2];
    }
  }
  return { width: wide, height: high, data: result };
}
