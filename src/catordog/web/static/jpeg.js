// Decodes a JPEG at a fraction of its size: the twin of Pillow's `draft`, bit by bit. Browsers only
// decode at full size, which rounds otherwise.
//
// This module reads a file's coefficients, as ITU-T T.81 says; jpeg_pixels.js makes pixels of them.

import { pixelsAt } from "/jpeg_pixels.js";

const [START, ADOBE, EXIF, ICC, RESTARTS, QUANTISERS, CODES, SCAN, END] = [
  0xd8, 0xee, 0xe1, 0xe2, 0xdd, 0xdb, 0xc4, 0xda, 0xd9,
];
const FRAMES = [0xc0, 0xc1, 0xc2]; // baseline, extended and progressive; all others are rare
const PROGRESSIVE = 0xc2;
const ZIGZAG = [
  0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
  28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
  47, 55, 62, 63,
];

// By how much Pillow's `draft` divides a photo's size: never below twice the size that is needed.
export function draftFactor(width, height, near) {
  const most = Math.min(Math.floor(width / (2 * near)), Math.floor(height / (2 * near)));
  return [8, 4, 2].find((factor) => most >= factor) ?? 1;
}

export function isJpeg(bytes) {
  return bytes[0] === 0xff && bytes[1] === START && bytes[2] === 0xff;
}

// A function of a factor, 2, 4 or 8, which decodes a JPEG at that fraction of its size, upright:
// { width, height, data } with `data` of red, green, blue for each pixel.
//
// Throws an error for a damaged file, and for what only browsers decode here: colour profiles, CMYK,
// and unusual subsampling.
export function openJpeg(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found = { quantisers: [], codes: {}, restarts: 0, orientation: 1, frame: null };
  let at = 2;
  for (;;) {
    while (bytes[at] === 0xff && bytes[at + 1] === 0xff) at += 1;
    if (at + 4 > bytes.length && bytes[at + 1] !== END) throw new Error("truncated file");
    if (bytes[at] !== 0xff) throw new Error("damaged file");
    const marker = bytes[at + 1];
    if (marker === END) break;
    const end = at + 2 + view.getUint16(at + 2);
    const part = bytes.subarray(at + 4, end);
    if (marker === SCAN) at = decodeScan(bytes, end, part, found);
    else at = end;
    if (marker === CODES) readCodes(part, found.codes);
    else if (marker === QUANTISERS) readQuantisers(part, found.quantisers);
    else if (marker === RESTARTS) found.restarts = view.getUint16(end - 2);
    else if (marker === EXIF) found.orientation = orientationOf(part) ?? found.orientation;
    else if (marker === ICC && isOtherProfile(part)) throw new Error("has a colour profile");
    else if (marker === ADOBE && startsWith(part, "Adobe") && part[11] !== 1) throw new Error("is not YCbCr");
    else if (FRAMES.includes(marker)) found.frame = readFrame(part, marker === PROGRESSIVE);
  }
  const { frame, orientation, quantisers } = found;
  if (!frame?.components.every(({ table }) => quantisers[table])) throw new Error("damaged file");
  for (const component of frame.components) component.quantiser = quantisers[component.table];
  return (factor) => pixelsAt(factor, frame, orientation);
}

function startsWith(bytes, text) {
  return [...text].every((letter, index) => bytes[index] === letter.charCodeAt(0));
}

// Whether it starts a colour profile that is not that of sRGB, which changes nothing.
function isOtherProfile(part) {
  const text = new TextDecoder("latin1").decode(part);
  return text.startsWith("ICC_PROFILE\0\x01") && !/desc\0{4}.{4}sRGB IEC61966-2\.1\0/s.test(text);
}

function orientationOf(part) {
  if (!startsWith(part, "Exif\0\0")) return null;
  const exif = new DataView(part.buffer, part.byteOffset + 6, part.length - 6);
  const little = exif.getUint16(0) === 0x4949;
  const directory = exif.getUint32(4, little);
  for (let entry = 0; entry < exif.getUint16(directory, little); entry += 1) {
    const from = directory + 2 + 12 * entry;
    if (exif.getUint16(from, little) === 0x112) return exif.getUint16(from + 8, little);
  }
  return null;
}

function readQuantisers(part, quantisers) {
  for (let at = 0; at < part.length; ) {
    const [wide, index] = [part[at] >> 4, part[at] & 15];
    const table = new Int32Array(64);
    at += 1;
    for (const place of ZIGZAG) {
      table[place] = wide ? (part[at] << 8) | part[at + 1] : part[at];
      at += wide ? 2 : 1;
    }
    quantisers[index] = table;
  }
}

// Huffman codes as a table of the next 16 bits: the length of the code, and its symbol below.
function readCodes(part, codes) {
  for (let at = 0; at < part.length; ) {
    const table = new Uint16Array(65536);
    const lengths = part.subarray(at + 1, at + 17);
    let [symbol, from] = [at + 17, 0];
    lengths.forEach((count, index) => {
      for (let i = 0; i < count; i += 1, symbol += 1) {
        const next = from + 2 ** (15 - index);
        table.fill(((index + 1) << 8) | part[symbol], from, next);
        from = next;
      }
    });
    codes[part[at]] = table;
    at = symbol;
  }
}

function readFrame(part, progressive) {
  const [height, width, count] = [(part[1] << 8) | part[2], (part[3] << 8) | part[4], part[5]];
  if (part[0] !== 8 || !height || ![1, 3].includes(count)) throw new Error("is not RGB or grey of 8 bits");
  const components = Array.from({ length: count }, (_, index) => {
    const [id, sampling, table] = part.subarray(6 + 3 * index);
    return { id, across: sampling >> 4, down: sampling & 15, table, predicted: 0 };
  });
  const [luma, ...chroma] = components;
  if (count === 1) [luma.across, luma.down] = [1, 1];
  if (luma.across > 2 || luma.down > 2 || chroma.some(({ across, down }) => across * down !== 1)) {
    throw new Error("has an unusual subsampling");
  }
  if (components.map(({ id }) => id).join() === "82,71,66") throw new Error("is not YCbCr");
  const [wide, high] = [8 * luma.across, 8 * luma.down];
  const [mcusAcross, mcusDown] = [Math.ceil(width / wide), Math.ceil(height / high)];
  for (const component of components) {
    const { across, down } = component;
    component.stride = mcusAcross * across; // blocks that are stored, some of them beyond the photo
    component.blocksAcross = Math.ceil((width * across) / wide);
    component.blocksDown = Math.ceil((height * down) / high);
    component.coefficients = new Int16Array(64 * component.stride * mcusDown * down);
  }
  return { width, height, progressive, components, mcusAcross, mcusDown };
}

// Decode the coefficients of a scan; the result is where the next marker is.
function decodeScan(bytes, start, part, { frame, codes, restarts }) {
  if (!frame) throw new Error("damaged file");
  const components = Array.from({ length: part[0] }, (_, index) => {
    const component = frame.components.find(({ id }) => id === part[1 + 2 * index]);
    const tables = part[2 + 2 * index];
    return Object.assign(component, { dc: codes[tables >> 4], ac: codes[16 | (tables & 15)], predicted: 0 });
  });
  const [first, last, bits] = part.subarray(1 + 2 * part[0]);
  const [before, shift] = [bits >> 4, bits & 15];
  let [at, buffer, held, run] = [start, 0, 0, 0];

  function fill() {
    while (held <= 16) {
      let byte = bytes[at];
      if (byte === 0xff && bytes[at + 1] === 0) at += 2;
      else if (byte === 0xff || at >= bytes.length) byte = 0; // a marker; at the end of a file, too
      else at += 1;
      buffer = (buffer << 8) | byte;
      held += 8;
    }
  }

  function receive(count) {
    if (held < count) fill();
    held -= count;
    return (buffer >> held) & ((1 << count) - 1);
  }

  function extended(count) {
    if (count === 0) return 0;
    const value = receive(count);
    return value < 1 << (count - 1) ? value - (1 << count) + 1 : value;
  }

  function symbol(table) {
    fill();
    const entry = table[(buffer >> (held - 16)) & 0xffff];
    if (entry === 0) throw new Error("damaged file");
    held -= entry >> 8;
    return entry & 255;
  }

  function baseline(component, values, offset) {
    component.predicted += extended(symbol(component.dc));
    values[offset] = component.predicted;
    for (let k = 1; k < 64; k += 1) {
      const found = symbol(component.ac);
      const size = found & 15;
      k += found >> 4;
      if (size) values[offset + ZIGZAG[k]] = extended(size);
      else if (found !== 0xf0) break;
    }
  }

  function dcFirst(component, values, offset) {
    component.predicted += extended(symbol(component.dc));
    values[offset] = component.predicted << shift;
  }

  function dcRefined(component, values, offset) {
    values[offset] |= receive(1) << shift;
  }

  function acFirst(component, values, offset) {
    if (run > 0) {
      run -= 1;
      return;
    }
    for (let k = first; k <= last; k += 1) {
      const found = symbol(component.ac);
      const [zeros, size] = [found >> 4, found & 15];
      if (!size && zeros < 15) {
        run = (1 << zeros) + receive(zeros) - 1;
        return;
      }
      k += zeros;
      if (size) values[offset + ZIGZAG[k]] = extended(size) * (1 << shift);
    }
  }

  function acRefined(component, values, offset) {
    const bit = 1 << shift;
    let k = first;
    const refine = (index) => {
      const value = values[index];
      if (receive(1) && !(Math.abs(value) & bit)) values[index] = value + (value < 0 ? -bit : bit);
    };
    if (run === 0) {
      for (; k <= last; k += 1) {
        const found = symbol(component.ac);
        let zeros = found >> 4;
        let value = 0;
        if (found & 15) value = receive(1) ? bit : -bit;
        else if (zeros < 15) {
          run = (1 << zeros) + receive(zeros);
          break;
        }
        for (; k <= last; k += 1) {
          const index = offset + ZIGZAG[k];
          if (values[index]) refine(index);
          else if (zeros === 0) {
            if (value) values[index] = value;
            break;
          } else zeros -= 1;
        }
      }
    }
    if (run > 0) {
      for (; k <= last; k += 1) if (values[offset + ZIGZAG[k]]) refine(offset + ZIGZAG[k]);
      run -= 1;
    }
  }

  const initial = first === 0 ? dcFirst : acFirst;
  const refined = first === 0 ? dcRefined : acRefined;
  const decode = frame.progressive ? (before === 0 ? initial : refined) : baseline;

  const [only] = components;
  const interleaved = components.length > 1;
  const count = interleaved ? frame.mcusAcross * frame.mcusDown : only.blocksAcross * only.blocksDown;
  for (let unit = 0; unit < count; unit += 1) {
    if (restarts && unit && unit % restarts === 0) {
      if (bytes[at] !== 0xff || (bytes[at + 1] & 0xf8) !== 0xd0) throw new Error("damaged file");
      [at, buffer, held, run] = [at + 2, 0, 0, 0];
      for (const component of components) component.predicted = 0;
    }
    if (interleaved) {
      const [left, top] = [unit % frame.mcusAcross, Math.floor(unit / frame.mcusAcross)];
      for (const component of components) {
        const { across, down, stride, coefficients } = component;
        for (let y = top * down; y < (top + 1) * down; y += 1) {
          for (let x = left * across; x < (left + 1) * across; x += 1) {
            decode(component, coefficients, 64 * (y * stride + x));
          }
        }
      }
    } else {
      const [x, y] = [unit % only.blocksAcross, Math.floor(unit / only.blocksAcross)];
      decode(only, only.coefficients, 64 * (y * only.stride + x));
    }
  }
  if (at >= bytes.length) throw new Error("truncated file");
  return at;
}
