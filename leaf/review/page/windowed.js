// Show long lists: only the visible entries are in the document.
"use strict";

// Show an entry of `height` pixels for each key in the scrolling element `box`; with a `width`, several per row.
// `make_one(key)` creates an entry, and `update(entry, key)` shows its current state.
function windowed(box, height, width, make_one, update) {
  let keys = [];
  const room = Object.assign(document.createElement("li"), { role: "presentation", className: "room" });
  const across = () => (width ? Math.max(1, Math.floor(box.clientWidth / width)) : 1);
  const refresh = () => {
    const columns = across();
    const first = Math.max(0, Math.floor(box.scrollTop / height) - 4) * columns;
    const last = (Math.ceil((box.scrollTop + box.clientHeight) / height) + 4) * columns;
    const there = new Map([...box.children].map((entry) => [entry.key, entry]));
    const entries = keys.slice(first, last).map((key, place) => {
      const entry = there.get(key) ?? Object.assign(make_one(key), { key });
      const number = first + place;
      entry.ariaSetSize = String(keys.length);
      entry.ariaPosInSet = String(number + 1);
      entry.style.top = `${Math.floor(number / columns) * height}px`;
      entry.style.left = `${(number % columns) * width}px`;
      update(entry, key);
      return entry;
    });
    room.style.height = `${Math.ceil(keys.length / columns) * height}px`;
    const now = [room, ...entries];
    if (now.length !== box.children.length || now.some((entry, place) => entry !== box.children[place])) box.replaceChildren(...now);
  };
  const show = (key) => {
    const top = Math.floor(keys.indexOf(key) / across()) * height;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + height > box.scrollTop + box.clientHeight) box.scrollTop = top + height - box.clientHeight;
    refresh();
  };
  box.addEventListener("scroll", refresh);
  new ResizeObserver(refresh).observe(box);
  return { across, refresh, show, set: (wanted) => { keys = wanted; refresh(); } };
}
