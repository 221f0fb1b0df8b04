// Cache the app for offline use. `leaf export` inserts the file names and a version that changes whenever a file changes.
"use strict";

const PREFIX = `leaf ${self.registration.scope} `; // apps on the same origin have different scopes
const CACHE = `${PREFIX}VERSION`;
const FILES = ["FILES"];

self.addEventListener("install", (event) => {
  const requests = ["./", ...FILES].map((file) => new Request(file, { cache: "no-cache" }));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(requests)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  const old = (names) => names.filter((name) => name.startsWith(PREFIX) && name !== CACHE);
  event.waitUntil(caches.keys().then((names) => Promise.all(old(names).map((name) => caches.delete(name)))));
});

self.addEventListener("fetch", (event) => {
  const cached = caches.open(CACHE).then((cache) => cache.match(event.request, { ignoreSearch: true }));
  event.respondWith(cached.then((answer) => answer ?? fetch(event.request)));
});
