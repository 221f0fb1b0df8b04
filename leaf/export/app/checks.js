// Detect photos that are too dark, blurred or overexposed, or in which the leaf is too small. The app shows a warning for
// them but still predicts their class. docs/use.md reports how often good photos trigger a warning.

import { resize } from "./pixels.js";

const SIDE = 96; // pixels; larger images are reduced to this size
export const LIMITS = { dark: 80, glare: 0.1, blurred: 0.58, small: 0.1 };

// Return the quality measures of an image that is prepared for the model, Uint8Array (size · size · 3).
export function measure(pixels, size) {
  const image = size > SIDE ? resize(pixels, size, size, 3, SIDE, SIDE, "area") : pixels;
  const side = Math.min(size, SIDE);
  const count = side * side;
  const gray = new Float32Array(count);
  const border = borderColor(image, side);
  let [bright, plant, other] = [0, 0, 0];
  for (let place = 0; place < count; place++) {
    const [red, green, blue] = [image[3 * place], image[3 * place + 1], image[3 * place + 2]];
    gray[place] = 0.299 * red + 0.587 * green + 0.114 * blue;
    bright += Math.min(red, green, blue) >= 245;
    plant += Math.max(red, green) - blue > 0.15 * Math.max(red, green) + 8; // green, yellow, brown or red
    other += Math.abs(red - border[0]) + Math.abs(green - border[1]) + Math.abs(blue - border[2]) > 60;
  }
  const sorted = Float32Array.from(gray).sort();
  const half = side >> 1;
  const fine = contrast(gray, side);
  const coarse = contrast(resize(gray, side, side, 1, half, half, "area"), half);
  return {
    dark: sorted[Math.floor(0.9 * count)], // 90th percentile of brightness, 0 to 255
    glare: bright / count, // share of overexposed pixels
    blurred: fine / (coarse + 0.5), // fine detail relative to coarse detail
    small: Math.max(plant, other) / count, // share of pixels that have plant colors or differ from the border
  };
}

// Return the names of the checks that a photo fails.
export function problems(measures) {
  return Object.keys(LIMITS).filter((name) =>
    name === "glare" ? measures[name] > LIMITS[name] : measures[name] < LIMITS[name],
  );
}

// Return the median color of the outermost pixels.
function borderColor(image, side) {
  const places = Array.from({ length: side }, (_, each) => [each, (side - 1) * side + each, each * side, each * side + side - 1]).flat();
  return [0, 1, 2].map((channel) => places.map((place) => image[3 * place + channel]).sort((a, b) => a - b)[places.length >> 1]);
}

// Return the mean absolute difference between neighboring pixels.
function contrast(plane, side) {
  let sum = 0;
  for (let row = 1; row < side; row++) {
    for (let column = 1; column < side; column++) {
      const place = row * side + column;
      sum += Math.abs(plane[place] - plane[place - 1]) + Math.abs(plane[place] - plane[place - side]);
    }
  }
  return sum / (2 * (side - 1) ** 2);
}
