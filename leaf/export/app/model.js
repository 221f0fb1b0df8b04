// Run the exported model: probabilities, out-of-distribution detection and heatmaps, as in leaf/serve/classifier.py.

import * as ort from "./onnxruntime.js";
import { resize, roundEven } from "./pixels.js";

const STRIDE = 8; // minimum distance in pixels between successive shifts of an image for a heatmap (leaf/models/gradcam.py)
const INFERNO = [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]];
const DARKEST = 1e-3; // constants from leaf/evaluate/out_of_distribution.py
const SCALES = 4;
const THUMBNAIL = 16;
const COPY_MSE = 150;

export async function loadModel(facts, network, runtime) {
  ort.env.wasm.numThreads = 1; // threads require HTTP headers that static hosts do not send
  ort.env.wasm.wasmBinary = runtime;
  const session = await ort.InferenceSession.create(network, { executionProviders: ["wasm"] });
  return new Model(facts, session);
}

class Model {
  constructor(facts, session) {
    this.facts = facts;
    this.session = session;
    this.running = Promise.resolve(); // the previous run; a session does not support concurrent runs
  }

  // Predict an image, Uint8Array (size · size · 3). In the result, `known` is false if it is out of distribution.
  async predict(pixels) {
    const { image_size: size, views, classes, ood } = this.facts;
    const image = Float32Array.from(pixels);
    const sums = new Array(classes.length).fill(0);
    let known = inDistribution(image, size, ood);
    for (let number = 0; number < views; number++) {
      const { probabilities, distance } = await this.run(view(image, size, number), ["probabilities", "distance"]);
      probabilities.data.forEach((value, label) => { sums[label] += value; });
      if (number === 0) known = known && distance.data[0] <= ood.features_limit;
    }
    return { probabilities: sums.map((sum) => sum / views), known };
  }

  async run(image, outputs) {
    const { image_size: size } = this.facts;
    const images = new ort.Tensor("float32", image, [1, size, size, 3]);
    const result = this.running.then(() => this.session.run({ images }, outputs));
    this.running = result.catch(() => {});
    return result;
  }

  // Return `{ rgba, side }`: the Grad-CAM heatmap for class `label`, blended with the image, `side` × `side` RGBA pixels.
  async heatmap(pixels, label) {
    const { image_size: size, epsilon, map_side: mapSide } = this.facts;
    const image = Float32Array.from(pixels);
    const total = new Float32Array(size * size);
    const steps = Math.max(1, Math.floor(Math.floor(size / mapSide) / STRIDE));
    const cell = Math.floor(size / mapSide);
    const shifts = Array.from({ length: steps }, (_, step) => Math.round(((step - (steps - 1) / 2) * cell) / steps));
    for (const down of shifts) {
      for (const right of shifts) {
        const { map, slopes } = await this.run(shift(image, size, 3, down, right), ["map", "slopes"]);
        const [, rows, columns, depth] = map.dims;
        const weights = gradient(slopes.data.subarray(label * depth, (label + 1) * depth), map.data, epsilon);
        const coarse = new Float32Array(rows * columns);
        coarse.forEach((_, place) => {
          for (let each = 0; each < depth; each++) coarse[place] += map.data[place * depth + each] * weights[each];
        });
        const fine = resize(coarse, columns, rows, 1, size, size, "linear");
        shift(fine, size, 1, -down, -right).forEach((value, place) => { total[place] += value; });
      }
    }
    return overlay(pixels, total.map((value) => Math.max(0, value)), size);
  }
}

// Return the label, confidence and answer for the class probabilities of an image (leaf/evaluate/selective.py).
export function decide(probabilities, known, { classes, threshold, min_confidence: limit }) {
  let label = probabilities.indexOf(Math.max(...probabilities));
  let confidence = probabilities[label];
  if (threshold !== null) {
    label = Number(probabilities[1] >= threshold);
    const weighted = [probabilities[0] * threshold, probabilities[1] * (1 - threshold)];
    confidence = Math.max(...weighted) / (weighted[0] + weighted[1]);
  }
  const answer = !known ? "not like the training images" : confidence >= limit ? classes[label] : "undecided";
  return { label, confidence, answer };
}

// Return view `number` for test-time augmentation (leaf/models/tta.py).
export function view(image, size, number) {
  if (number < 8) return turned(image, size, number & 4, number & 2, number & 1);
  const side = Math.max(1, roundEven((size * 7) / 8));
  const [vertical, horizontal] = [[0.5, 0.5], [0, 0], [0, 1], [1, 0], [1, 1]][(number - 8) % 5];
  const [top, left] = [vertical, horizontal].map((part) => roundEven((size - side) * part));
  const cropped = new Float32Array(side * side * 3);
  for (let row = 0; row < side; row++) {
    const start = ((top + row) * size + left) * 3;
    cropped.set(image.subarray(start, start + side * 3), row * side * 3);
  }
  const resized = resize(cropped, side, side, 3, size, size, "linear");
  return number >= 13 ? turned(resized, size, 0, 0, 1) : resized;
}

function turned(image, size, transpose, flipRows, flipColumns) {
  const out = new Float32Array(image.length);
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      const [y, x] = [flipRows ? size - 1 - row : row, flipColumns ? size - 1 - column : column];
      const from = 3 * (transpose ? x * size + y : y * size + x);
      out.set(image.subarray(from, from + 3), 3 * (row * size + column));
    }
  }
  return out;
}

function shift(image, size, channels, down, right) {
  const out = new Float32Array(image.length);
  const clamp = (place) => Math.min(size - 1, Math.max(0, place));
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      const from = channels * (clamp(row + down) * size + clamp(column + right));
      out.set(image.subarray(from, from + channels), channels * (row * size + column));
    }
  }
  return out;
}

// Return the gradient of a class's logit with respect to the last feature map (`gradient` in leaf/models/gradcam.py).
function gradient(slope, map, epsilon) {
  if (epsilon === null) return slope;
  const depth = slope.length;
  const places = map.length / depth;
  const mean = new Float32Array(depth);
  map.forEach((value, each) => { mean[each % depth] += value / places; });
  const average = (values) => values.reduce((sum, value) => sum + value, 0) / depth;
  const center = average(mean);
  const deviation = Math.sqrt(average(mean.map((value) => (value - center) ** 2)) + epsilon);
  const standard = mean.map((value) => (value - center) / deviation);
  const offset = average(slope);
  const along = average(standard.map((value, each) => value * slope[each]));
  return standard.map((value, each) => (slope[each] - offset - value * along) / deviation);
}

function overlay(pixels, map, size) {
  const side = size * Math.max(1, Math.ceil(288 / size));
  const peak = Math.max(...map) || 1;
  const level = resize(map, size, size, 1, side, side, "linear");
  const image = resize(pixels, size, size, 3, side, side, "linear");
  const rgba = new Uint8ClampedArray(4 * side * side);
  for (let place = 0; place < side * side; place++) {
    const strength = level[place] / peak;
    const stop = Math.min(4, Math.floor(strength * 5));
    const gray = (image[3 * place] + image[3 * place + 1] + image[3 * place + 2]) / 3;
    const opacity = 0.35 + 0.4 * strength;
    for (let channel = 0; channel < 3; channel++) {
      const [low, high] = [INFERNO[stop][channel], INFERNO[stop + 1][channel]];
      rgba[4 * place + channel] = gray * (1 - opacity) + (low + (high - low) * (strength * 5 - stop)) * opacity;
    }
    rgba[4 * place + 3] = 255;
  }
  return { rgba, side };
}

// Return whether the pixel statistics resemble those of the training images and the image is not a copy of an outlier.
function inDistribution(image, size, ood) {
  const difference = statistics(image, size).map((value, each) => value - ood.mean[each]);
  const whitened = ood.mean.map((_, to) => difference.reduce((sum, value, from) => sum + value * ood.whitening[from][to], 0));
  if (Math.hypot(...whitened) > ood.statistics_limit) return false;
  const small = resize(image, size, size, 3, THUMBNAIL, THUMBNAIL, "area");
  const error = (reference) => small.reduce((sum, value, each) => sum + (value - reference[each]) ** 2, 0) / small.length;
  return !ood.references.some((reference) => error(reference) < COPY_MSE);
}

// Return the pixel statistics of an image, as `image_statistics` in leaf/evaluate/out_of_distribution.py does.
export function statistics(image, size) {
  const count = size * size;
  const planes = [[0.299, 0.587, 0.114], [1, -1, 0], [0, -1, 1]].map((channel) => {
    const plane = new Float32Array(count);
    for (let place = 0; place < count; place++) {
      for (let each = 0; each < 3; each++) plane[place] += (channel[each] / 255) * image[3 * place + each];
    }
    return plane;
  });
  const log = (value) => Math.log(value + DARKEST);
  const moments = planes.map((plane) => {
    const mean = plane.reduce((sum, value) => sum + value, 0) / count;
    return [mean, Math.sqrt(plane.reduce((sum, value) => sum + (value - mean) ** 2, 0) / count)];
  });
  const found = [];
  planes.forEach((full, channel) => {
    found.push(moments[channel][0], log(moments[channel][1]));
    let [plane, side] = [full, size];
    for (let scale = 0; scale < SCALES; scale++) {
      const [across, acrossSquare] = differences(plane, side, 1);
      const [down, downSquare] = differences(plane, side, side);
      found.push(log(across + down));
      if (channel === 0) {
        const strong = acrossSquare + downSquare + DARKEST ** 2;
        found.push(log(across) - log(down), Math.log(strong / (across + down + DARKEST) ** 2));
      }
      const half = Math.max(2, Math.floor(side / 2));
      plane = resize(plane, side, side, 1, half, half, "area");
      side = half;
    }
  });
  const colors = new Set();
  for (let place = 0; place < count; place++) {
    colors.add(((image[3 * place] >> 3) << 10) | ((image[3 * place + 1] >> 3) << 5) | (image[3 * place + 2] >> 3));
  }
  const [[mean, deviation], [otherMean, otherDeviation]] = moments;
  const product = planes[0].reduce((sum, value, place) => sum + (value - mean) * (planes[1][place] - otherMean), 0) / count;
  return [...found, Math.log(colors.size), product / (deviation * otherDeviation + DARKEST ** 2)];
}

// Return the mean absolute and the mean squared difference between neighboring pixels. They are horizontal neighbors if
// `step` is 1, and vertical neighbors if `step` is `side`.
function differences(plane, side, step) {
  let [absolute, squared, count] = [0, 0, 0];
  for (let place = step; place < plane.length; place++) {
    if (step === 1 && place % side === 0) continue;
    const difference = plane[place] - plane[place - step];
    absolute += Math.abs(difference);
    squared += difference ** 2;
    count += 1;
  }
  return [absolute / count, squared / count];
}
