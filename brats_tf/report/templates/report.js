"use strict";
// Tables: a click (or Enter) on a column's name sorts by it, a second time in reverse.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const order = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");  // Rows without a score come last in either order.
      const sign = down ? -1 : 1;
      return sign * (isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y);
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
  }));
}

// Slices: each case is one picture with every axial slice; red is the image, green the truth, blue the prediction.
const byId = (id) => document.getElementById(id);
const cases = JSON.parse(byId("sprite-sheets").textContent);
const palette = JSON.parse(byId("palette").textContent);
const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
const COLOURS = Object.fromEntries(Object.entries(palette.colours).map(([name, hex]) => [name, rgb(hex)]));
const ERRORS = Object.fromEntries(Object.entries(palette.errors).map(([name, hex]) => [name, rgb(hex)]));
const CLASSES = [null, ...palette.classes.slice(1)];
let current = null;

async function load(name) {
  const sheet = cases[name];
  const image = new Image();
  image.src = "data:image/png;base64," + sheet.png;
  await image.decode();
  const buffer = document.createElement("canvas");
  [buffer.width, buffer.height] = [image.width, image.height];
  const context = buffer.getContext("2d", {willReadFrequently: true});
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, buffer.width, buffer.height).data;
  current = {name, sheet, pixels, width: buffer.width};
  resetSlice();
}

function axes() {
  const [h, w, d] = current.sheet.shape;
  const [eh, ew, ed] = current.sheet.spacing_mm;
  // Front or head on top. across, down: how many; place(x, y): indices h, w, d.
  return {
    axial: {count: d, start: current.sheet.start[2], across: w, down: h, mm: [ew, eh], place: (x, y, s) => [y, x, s]},
    coronal: {count: h, start: current.sheet.start[0], across: w, down: d, mm: [ew, ed], place: (x, y, s) => [s, x, d - 1 - y]},
    sagittal: {count: w, start: current.sheet.start[1], across: h, down: d, mm: [eh, ed], place: (x, y, s) => [x, s, d - 1 - y]},
  }[document.querySelector("input[name=axis]:checked").value];
}

function resetSlice() {
  const slider = byId("slice"), axis = axes();
  slider.max = axis.count - 1;
  slider.value = axis.start;
  draw();
}

function colour(truth, prediction, mode, shown) {
  if (mode !== "error") {
    const name = CLASSES[mode === "truth" ? truth : prediction];
    return name && shown.has(name) ? COLOURS[name] : null;
  }
  const [t, p] = [shown.has(CLASSES[truth]), shown.has(CLASSES[prediction])];
  if (t && !p) return ERRORS.missed;
  if (p && !t) return ERRORS.false;
  return t && p && truth !== prediction ? ERRORS["wrong class"] : null;
}

function draw() {
  if (!current) return;
  const axis = axes(), slice = +byId("slice").value, opacity = byId("opacity").value / 100;
  const mode = document.querySelector("input[name=mode]:checked").value;
  const shown = new Set([...document.querySelectorAll("input[name=region]:checked")].map((box) => box.value));
  const [height, width] = current.sheet.shape;
  const small = document.createElement("canvas");
  [small.width, small.height] = [axis.across, axis.down];
  const picture = new ImageData(axis.across, axis.down);
  for (let y = 0; y < axis.down; y++) for (let x = 0; x < axis.across; x++) {
    const [h, w, d] = axis.place(x, y, slice);
    const row = Math.floor(d / current.sheet.columns) * height + h;
    const at = 4 * (row * current.width + (d % current.sheet.columns) * width + w);
    const grey = current.pixels[at];
    const truth = Math.round(current.pixels[at + 1] / palette.levels);
    const prediction = Math.round(current.pixels[at + 2] / palette.levels);
    const over = colour(truth, prediction, mode, shown);
    for (let c = 0; c < 3; c++) picture.data[4 * (y * axis.across + x) + c] = over ? (1 - opacity) * grey + opacity * over[c] : grey;
    picture.data[4 * (y * axis.across + x) + 3] = 255;
  }
  small.getContext("2d").putImageData(picture, 0, 0);
  const canvas = byId("canvas");
  canvas.width = 520;
  canvas.height = Math.round(520 * axis.down * axis.mm[1] / (axis.across * axis.mm[0]));
  canvas.getContext("2d").drawImage(small, 0, 0, canvas.width, canvas.height);
  const where = `${current.name}, slice ${slice + 1} of ${axis.count}`;
  byId("where").textContent = where;
  canvas.setAttribute("aria-label", where);
}

if (byId("case")) {
  byId("case").addEventListener("change", (event) => load(event.target.value));
  for (const input of document.querySelectorAll("input[name=axis]")) input.addEventListener("change", resetSlice);
  for (const input of document.querySelectorAll("#slice, #opacity")) input.addEventListener("input", draw);
  for (const input of document.querySelectorAll("input[name=mode], input[name=region]")) input.addEventListener("change", draw);
  const step = (by) => { byId("slice").value = +byId("slice").value + by; draw(); };
  byId("canvas").addEventListener("wheel", (event) => { event.preventDefault(); step(Math.sign(event.deltaY)); }, {passive: false});
  byId("canvas").addEventListener("keydown", (event) => {
    const by = {ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10}[event.key];
    if (by) { event.preventDefault(); step(by); }
  });
  load(byId("case").value);
}
