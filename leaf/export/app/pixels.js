// Decode and resize a photo as `leaf predict` does (leaf/ingest/decode.py). Photos are not resized with a canvas, because
// each browser resamples differently.

const STRIP = 64; // rows of the reduced image that are read from the canvas at a time, to limit memory
const CUBIC = -0.75; // OpenCV's coefficient for cubic interpolation
const THUMBNAIL = 256; // length of the shorter side in pixels

// Decode an image file. Return `pixels`, the model's input as a Uint8Array (size · size · 3), and `thumbnail`, the URL of
// a small JPEG. Throw an error if the browser cannot decode the file.
export async function prepare(file, size, fit) {
  const head = new Uint8Array(await file.slice(0, 262144).arrayBuffer());
  const jpeg = head[0] === 0xff && head[1] === 0xd8;
  const image = await decode(file);
  try {
    const pixels = square(image, size, fit, jpeg ? orientation(head) : 0, jpeg && halfChroma(head));
    return { pixels, thumbnail: shrink(image) };
  } finally {
    image.close?.();
  }
}

async function decode(file) {
  try {
    return await createImageBitmap(file); // upright, converted to sRGB
  } catch {
    const image = new Image(); // the only way to decode HEIC in Safari
    const address = URL.createObjectURL(file);
    image.src = address;
    try {
      await image.decode();
      return image;
    } finally {
      URL.revokeObjectURL(address);
    }
  }
}

// Return the URL of a thumbnail. Browsers keep all pixels of a displayed photo in memory: 48 MB for 12 megapixels.
function shrink(image) {
  const [width, height] = [image.naturalWidth ?? image.width, image.naturalHeight ?? image.height];
  const scale = Math.min(1, THUMBNAIL / Math.min(width, height));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", 0.85); // toBlob waits until the browser is idle
}

// Return the EXIF orientation of a JPEG, 1 to 8.
export function orientation(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let place = 2; place + 18 < view.byteLength && view.getUint8(place) === 0xff; ) {
    const length = view.getUint16(place + 2);
    if (view.getUint8(place + 1) === 0xe1 && view.getUint32(place + 4) === 0x45786966) return fromExif(view, place + 10);
    place += 2 + length;
  }
  return 1;
}

// Return whether a JPEG stores color at half resolution along both axes (4:2:0), as most JPEGs do.
function halfChroma(bytes) {
  for (let place = 2; place + 12 < bytes.length && bytes[place] === 0xff; ) {
    const [marker, length] = [bytes[place + 1], 256 * bytes[place + 2] + bytes[place + 3]];
    if (marker >= 0xc0 && marker <= 0xc2) return bytes[place + 9] === 3 && bytes[place + 11] === 0x22;
    place += 2 + length;
  }
  return false;
}

function fromExif(view, start) {
  const little = view.getUint16(start) === 0x4949;
  const end = view.byteLength;
  const folder = start + view.getUint32(start + 4, little);
  const count = folder + 2 <= end ? view.getUint16(folder, little) : 0;
  for (let entry = folder + 2; entry < folder + 2 + 12 * count && entry + 12 <= end; entry += 12) {
    if (view.getUint16(entry, little) === 0x0112) {
      const value = view.getUint16(entry + 8, little);
      return value >= 1 && value <= 8 ? value : 1;
    }
  }
  return 1;
}

// Return a decoded image as size × size RGB pixels. `turn` is the EXIF orientation of a JPEG, or 0 for other formats.
function square(image, size, fit, turn, chroma) {
  const [width, height] = [image.naturalWidth ?? image.width, image.naturalHeight ?? image.height];
  const least = Math.ceil((4 / 3) * size);
  const most = Math.min(Math.floor(width / least), Math.floor(height / least));
  const scale = turn ? [8, 4, 2, 1].find((each) => each <= Math.max(1, most)) : 1; // a JPEG is decoded at reduced size
  const [columns, rows] = [Math.ceil(width / scale), Math.ceil(height / scale)];
  let area = { left: 0, top: 0, width: columns, height: rows };
  if (fit === "crop") {
    const side = Math.min(columns, rows);
    area = { left: Math.floor((columns - side) / 2), top: Math.floor((rows - side) / 2), width: side, height: side };
  }
  // The 8×8 blocks of a JPEG start at the first row and column in the file. In a flipped image, these are the last ones.
  const shiftX = [2, 3, 6, 7].includes(turn) ? width - columns * scale : 0;
  const shiftY = [3, 4, 7, 8].includes(turn) ? height - rows * scale : 0;
  const pixels = read(image, width, height, area, scale, shiftX, shiftY);
  if (chroma && scale === 2) restoreChroma(pixels, area.width, area.height);
  return toSquare(pixels, area.width, area.height, size, fit);
}

// Return an area as RGB pixels on a white background, reduced by averaging blocks of scale × scale pixels.
function read(image, width, height, area, scale, shiftX, shiftY) {
  const pixels = new Uint8Array(area.width * area.height * 3);
  const canvas = document.createElement("canvas");
  const left = Math.max(0, area.left * scale + shiftX);
  canvas.width = Math.min(width, (area.left + area.width) * scale + shiftX) - left;
  canvas.height = STRIP * scale;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  for (let first = 0; first < area.height; first += STRIP) {
    const count = Math.min(STRIP, area.height - first);
    const start = (area.top + first) * scale + shiftY;
    const top = Math.max(0, start);
    const bottom = Math.min(height, start + count * scale);
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, left, top, canvas.width, bottom - top, 0, 0, canvas.width, bottom - top);
    const data = new Int32Array(context.getImageData(0, 0, canvas.width, bottom - top).data.buffer);
    const edge = { width: canvas.width, height: bottom - top };
    for (let row = 0; row < count; row++) {
      const out = (first + row) * area.width * 3;
      const y = start + row * scale - top;
      average(data, edge, scale, area.left * scale + shiftX - left, y, pixels.subarray(out, out + area.width * 3));
    }
  }
  canvas.width = canvas.height = 0; // otherwise, Safari delays freeing the memory
  return pixels;
}

// Compute one row of the reduced image. Blocks that extend beyond the edge repeat the edge pixels. `data` is an Int32Array
// of ABGR pixels. One number holds the sums of both red and blue, because 64 values of up to 255 fit into 16 bits.
function average(data, edge, scale, x, y, out) {
  const area = scale * scale;
  const clamp = (place, count) => Math.min(Math.max(place, 0), count - 1);
  const starts = Array.from({ length: scale }, (_, down) => clamp(y + down, edge.height) * edge.width);
  for (let column = 0, first = x; column < out.length / 3; column++, first += scale) {
    const over = first < 0 || first + scale > edge.width;
    let redBlue = 0;
    let green = 0;
    for (let down = 0; down < scale; down++) {
      const start = starts[down];
      for (let place = first; place < first + scale; place++) {
        const pixel = data[start + (over ? clamp(place, edge.width) : place)];
        redBlue += pixel & 0xff00ff;
        green += (pixel >> 8) & 0xff;
      }
    }
    out[3 * column] = roundEven((redBlue & 0xffff) / area);
    out[3 * column + 1] = roundEven(green / area);
    out[3 * column + 2] = roundEven((redBlue >> 16) / area);
  }
}

// Undo the color interpolation of the browser's decoder, because `leaf predict` decodes at half size without interpolation.
// Along each axis, the mean of two interpolated values is 3/4 of the original value plus 1/8 of each neighbor.
function restoreChroma(pixels, width, height) {
  const count = width * height;
  const brightness = Float32Array.from({ length: count }, (_, each) =>
    0.299 * pixels[3 * each] + 0.587 * pixels[3 * each + 1] + 0.114 * pixels[3 * each + 2]);
  const [red, blue] = [0, 2].map((channel) => {
    const plane = Float32Array.from(brightness, (value, each) => pixels[3 * each + channel] - value);
    for (let row = 0; row < height; row++) solve(plane, row * width, 1, width);
    for (let column = 0; column < width; column++) solve(plane, column, width, height);
    return plane.map((value, each) => value + brightness[each]);
  });
  for (let each = 0; each < count; each++) {
    const green = (brightness[each] - 0.299 * red[each] - 0.114 * blue[each]) / 0.587;
    [red[each], green, blue[each]].forEach((value, channel) => {
      pixels[3 * each + channel] = Math.min(255, Math.max(0, Math.round(value)));
    });
  }
}

// Solve the tridiagonal system in place for `count` values that are `step` elements apart.
function solve(values, start, step, count) {
  if (count < 2) return;
  const ratios = new Float32Array(count);
  for (let each = 0; each < count; each++) {
    const place = start + each * step;
    const diagonal = each === 0 || each === count - 1 ? 7 / 8 : 3 / 4;
    const pivot = diagonal - (each ? ratios[each - 1] / 8 : 0);
    ratios[each] = 1 / 8 / pivot;
    values[place] = (values[place] - (each ? values[place - step] / 8 : 0)) / pivot;
  }
  for (let each = count - 2; each >= 0; each--) {
    values[start + each * step] -= ratios[each] * values[start + (each + 1) * step];
  }
}

// Resize RGB pixels to a square as `to_square` in leaf/ingest/decode.py does. With "crop", the pixels must form a square.
export function toSquare(pixels, width, height, size, fit) {
  const longer = Math.max(width, height);
  const fitted = (side) => (fit === "pad" ? Math.max(1, roundEven((size * side) / longer)) : size);
  const [columns, rows] = [fitted(width), fitted(height)];
  const across = method(width, columns);
  const down = method(height, rows);
  let resized;
  if (across === down) {
    resized = bytes(resize(pixels, width, height, 3, columns, rows, across), across);
  } else {
    const wide = bytes(resize(pixels, width, height, 3, columns, height, across), across);
    resized = bytes(resize(wide, columns, height, 3, columns, rows, down), down);
  }
  if (columns === size && rows === size) return resized;
  const out = new Uint8Array(size * size * 3);
  const [top, left] = [Math.floor((size - rows) / 2), Math.floor((size - columns) / 2)];
  for (let row = 0; row < rows; row++) {
    out.set(resized.subarray(row * columns * 3, (row + 1) * columns * 3), ((top + row) * size + left) * 3);
  }
  return out;
}

function method(side, size) {
  return side < size ? "cubic" : 2 * side < 3 * size ? "linear" : "area";
}

// Round half to even, as Python does.
export function roundEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

function bytes(values, method) {
  const half = method === "linear" ? 0.375 : 0.5; // OpenCV truncates intermediate values of linear interpolation
  return Uint8Array.from(values, (value) => Math.min(255, Math.max(0, Math.floor(value + half))));
}

// Resize interleaved pixels as OpenCV does, without rounding; `method` is "linear", "cubic" or "area".
export function resize(pixels, width, height, channels, columns, rows, method) {
  const across = taps(width, columns, method);
  const down = taps(height, rows, method);
  const wide = new Float32Array(height * columns * channels);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < columns; column++) {
      for (let channel = 0; channel < channels; channel++) {
        let sum = 0;
        for (const [place, weight] of across[column]) sum += weight * pixels[(row * width + place) * channels + channel];
        wide[(row * columns + column) * channels + channel] = sum;
      }
    }
  }
  const line = columns * channels;
  const out = new Float32Array(rows * line);
  for (let row = 0; row < rows; row++) {
    for (const [place, weight] of down[row]) {
      for (let each = 0; each < line; each++) out[row * line + each] += weight * wide[place * line + each];
    }
  }
  return out;
}

// Return [input position, weight] pairs for each output position along one axis.
function taps(side, size, method) {
  const scale = side / size;
  const clamp = (place) => Math.min(side - 1, Math.max(0, place));
  return Array.from({ length: size }, (_, index) => {
    if (side === size) return [[index, 1]];
    if (method === "area") return areaTaps(index * scale, Math.min(scale, side - index * scale), side);
    const center = (index + 0.5) * scale - 0.5;
    const first = Math.floor(center);
    const part = center - first;
    if (method === "linear") return [[clamp(first), 1 - part], [clamp(first + 1), part]];
    return cubic(part).map((weight, tap) => [clamp(first - 1 + tap), weight]);
  });
}

function areaTaps(start, length, side) {
  const pairs = [];
  for (let place = Math.floor(start); place < Math.min(side, start + length); place++) {
    const covered = Math.min(place + 1, start + length) - Math.max(place, start);
    if (covered > 1e-3) pairs.push([place, covered]);
  }
  const total = pairs.reduce((sum, [, weight]) => sum + weight, 0);
  return pairs.map(([place, weight]) => [place, weight / total]);
}

function cubic(x) {
  const outer = (t) => ((CUBIC * t - 5 * CUBIC) * t + 8 * CUBIC) * t - 4 * CUBIC;
  const inner = (t) => ((CUBIC + 2) * t - (CUBIC + 3)) * t * t + 1;
  const weights = [outer(x + 1), inner(x), inner(1 - x)];
  return [...weights, 1 - weights[0] - weights[1] - weights[2]];
}
