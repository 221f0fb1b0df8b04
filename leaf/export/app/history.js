// Save the history on this device (IndexedDB), and export it as a table or as a zip file of photos and labels.

const STORE = "plants";

// Open the history. Some browsers block storage for local files; the history is then lost when the page is closed.
export async function openHistory() {
  try {
    return new Stored(await opened());
  } catch {
    return new Unstored();
  }
}

function opened() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(`leaf ${location.pathname}`, 1); // several apps may share an origin
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

class Stored {
  lasting = true;

  constructor(database) {
    this.database = database;
  }

  // Add or replace a plant: { id, time, photos: [{ name, file, thumbnail }], probabilities, label, answer, truth, note, place }.
  put(plant) { return this.run("readwrite", (store) => store.put(plant)); }
  delete(id) { return this.run("readwrite", (store) => store.delete(id)); }
  clear() { return this.run("readwrite", (store) => store.clear()); }
  count() { return this.run("readonly", (store) => store.count()); }

  async all() {
    return (await this.run("readonly", (store) => store.getAll())).sort((one, other) => other.time - one.time);
  }

  run(mode, work) {
    return new Promise((resolve, reject) => {
      const transaction = this.database.transaction(STORE, mode);
      const request = work(transaction.objectStore(STORE));
      transaction.commit(); // once committed, closing the page loses nothing
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = transaction.onerror = () => reject(transaction.error);
    });
  }
}

class Unstored {
  lasting = false;
  plants = new Map();

  async put(plant) { this.plants.set(plant.id, plant); }
  async delete(id) { this.plants.delete(id); }
  async clear() { this.plants.clear(); }
  async count() { return this.plants.size; }
  async all() { return [...this.plants.values()].sort((one, other) => other.time - one.time); }
}

function facts(plant) {
  const { answer, note, place, time } = plant;
  return [answer, new Date(time).toISOString(), note, place?.latitude ?? "", place?.longitude ?? ""];
}

// Return a CSV table with one row per plant.
export function table(plants, classes) {
  const head = ["plant", "label", "predicted", "answer", "date", "note", "latitude", "longitude", "photos"];
  const rows = plants.map((plant) => [
    plant.id, plant.truth, classes[plant.label], ...facts(plant), plant.photos.map(({ name }) => name).join("; "), ...plant.probabilities,
  ]);
  return csv([[...head, ...classes.map((name) => `probability of ${name}`)], ...rows]);
}

// Return a zip file of all photos and labels.csv, which leaf accepts as `dataset` and `labels`. The label of a photo is the
// class that the user selected, not the prediction. If the user selected none, the photo is unlabeled.
export async function archive(plants, classes) {
  const rows = [["file", "label", "group", "predicted", "answer", "date", "note", "latitude", "longitude"]];
  const files = [];
  for (const plant of plants) {
    plant.photos.forEach(({ name, file }, number) => {
      const suffix = /\.\w{2,5}$/.exec(name)?.[0].toLowerCase() ?? ".jpg";
      const path = `images/${plant.id}-${number + 1}${suffix}`;
      files.push([path, file]);
      rows.push([path, plant.truth, plant.id, classes[plant.label], ...facts(plant)]);
    });
  }
  return zip([["labels.csv", new Blob([csv(rows)])], ...files]);
}

// Quote all cells. A leading apostrophe prevents spreadsheets from evaluating text as a formula.
function csv(rows) {
  const cell = (value) => {
    const text = String(value);
    return `"${(typeof value === "string" && /^[=+@-]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
  };
  return rows.map((row) => row.map(cell).join(",") + "\r\n").join("");
}

const CRC = Uint32Array.from({ length: 256 }, (_, start) => {
  let value = start;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

function crc32(bytes) {
  let value = ~0;
  for (const byte of bytes) value = (value >>> 8) ^ CRC[(value ^ byte) & 0xff];
  return ~value >>> 0;
}

// Return an uncompressed zip file of [path, Blob] pairs; photos are already compressed.
export async function zip(files) {
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const [path, content] of files) {
    const name = new TextEncoder().encode(path);
    const crc = crc32(new Uint8Array(await content.arrayBuffer()));
    // version 2.0, UTF-8 names, stored, 1980-01-01 00:00
    const common = [[20, 2], [0x800, 2], [0, 2], [0, 2], [0x21, 2], [crc, 4], [content.size, 4], [content.size, 4], [name.length, 2], [0, 2]];
    const local = fields([0x04034b50, 4], ...common);
    directory.push(fields([0x02014b50, 4], [20, 2], ...common, [0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]), name);
    parts.push(local, name, content);
    offset += local.length + name.length + content.size;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const count = files.length;
  const end = fields([0x06054b50, 4], [0, 2], [0, 2], [count, 2], [count, 2], [size, 4], [offset, 4], [0, 2]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

// Encode [value, number of bytes] pairs as little-endian bytes.
function fields(...pairs) {
  return Uint8Array.from(pairs.flatMap(([value, count]) => Array.from({ length: count }, (_, byte) => value >>> (8 * byte))));
}
