"use strict";
// Tables: a click (or Enter) on a column's name sorts by it, once more the other way round.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const order = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");  // Without a score: last, whichever way.
      const sign = down ? -1 : 1;
      return sign * (isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y);
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
  }));
}

// Slices: each case is one picture with every axial slice; red is the image, green the truth, blue the prediction.
const cases = JSON.parse(document.getElementById("atlases").textContent);
const byId = (id) => document.getElementById(id);
const CLASS_STEP = 60;
const COLOURS = {necrosis: [213, 94, 0], edema: [0, 158, 115], enhancing: [240, 228, 66]};
const CLASSES = [null, "necrosis", "edema", "enhancing"];
const WRONG = {missed: [0, 114, 178], added: [230, 159, 0], other: [204, 121, 167]};
let current = null;

async function load(name) {
  const atlas = cases[name];
  const image = new Image();
  image.src = "data:image/png;base64," + atlas.png;
  await image.decode();
  const sheet = document.createElement("canvas");
  [sheet.width, sheet.height] = [image.width, image.height];
  const context = sheet.getContext("2d", {willReadFrequently: true});
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, sheet.width, sheet.height).data;
  current = {name, atlas, pixels, width: sheet.width};
  resetSlice();
}

function axes() {
  const [h, w, d] = current.atlas.shape;
  const [eh, ew, ed] = current.atlas.spacing_mm;
  // Front or head on top. across, down: how many; place(x, y): indices h, w, d.
  return {
    axial: {count: d, start: current.atlas.start[2], across: w, down: h, mm: [ew, eh], place: (x, y, s) => [y, x, s]},
    coronal: {count: h, start: current.atlas.start[0], across: w, down: d, mm: [ew, ed], place: (x, y, s) => [s, x, d - 1 - y]},
    sagittal: {count: w, start: current.atlas.start[1], across: h, down: d, mm: [eh, ed], place: (x, y, s) => [x, s, d - 1 - y]},
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
  if (t && !p) return WRONG.missed;
  if (p && !t) return WRONG.added;
  return t && p && truth !== prediction ? WRONG.other : null;
}

function draw() {
  if (!current) return;
  const axis = axes(), slice = +byId("slice").value, opacity = byId("opacity").value / 100;
  const mode = document.querySelector("input[name=mode]:checked").value;
  const shown = new Set([...document.querySelectorAll("input[name=region]:checked")].map((box) => box.value));
  const [height, width] = current.atlas.shape;
  const small = document.createElement("canvas");
  [small.width, small.height] = [axis.across, axis.down];
  const picture = new ImageData(axis.across, axis.down);
  for (let y = 0; y < axis.down; y++) for (let x = 0; x < axis.across; x++) {
    const [h, w, d] = axis.place(x, y, slice);
    const row = Math.floor(d / current.atlas.columns) * height + h;
    const at = 4 * (row * current.width + (d % current.atlas.columns) * width + w);
    const grey = current.pixels[at];
    const truth = Math.round(current.pixels[at + 1] / CLASS_STEP);
    const prediction = Math.round(current.pixels[at + 2] / CLASS_STEP);
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
