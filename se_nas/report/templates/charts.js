// Drawing shared by the report and the comparison. Text reaches the page through textContent alone.
const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) node.append(child);
  }
  return node;
}
const html = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

function fixed(value, digits) {
  if (value === null || value === undefined) return "–";
  const text = value.toFixed(digits);
  return Number(text) === 0 ? (0).toFixed(digits) : text.replace("-", "−");
}
const signed = (value, digits) => (value > 0 ? "+" : "") + fixed(value, digits);
function plusMinus(gain, digits, sign = true) {
  if (!gain) return "–";
  return (sign ? signed(gain[0], digits) : fixed(gain[0], digits)) + (gain[1] === null ? "" : "±" + fixed(gain[1], digits));
}

function ticks(low, high, count, whole = false) {
  const raw = Math.max((high - low) / Math.max(1, count), whole ? 1 : 0);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= raw * 0.999 && (!whole || candidate % 1 === 0));
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) values.push(i * step);
  const text = String(Number(step.toPrecision(3)));
  return { values, digits: text.includes(".") ? text.split(".")[1].length : 0 };
}

function extent(values, pad = 0.06) {
  const known = values.filter((value) => Number.isFinite(value));
  let low = Math.min(...known), high = Math.max(...known);
  if (!known.length) [low, high] = [0, 1];
  if (low === high) [low, high] = [low - Math.abs(low || 1) * 0.05, high + Math.abs(high || 1) * 0.05];
  const margin = (high - low) * pad;
  return [low - margin, high + margin];
}

// Redraws when the width of the host changes, so that type keeps its size on a phone and on paper.
const charts = [];
const PAPER = 690;
function responsive(host, draw) {
  let width = 0;
  const redraw = () => {
    width = host.clientWidth;
    if (width) host.replaceChildren(draw(width));
  };
  new ResizeObserver(() => { if (Math.abs(host.clientWidth - width) > 1) redraw(); }).observe(host);
  redraw();
  charts.push({ host, draw, redraw });
  return redraw;
}
addEventListener("beforeprint", () => {
  const page = document.querySelector("main").clientWidth;
  for (const { host, draw } of charts) {
    const width = Math.min(host.clientWidth, Math.round((PAPER * host.clientWidth) / page));
    if (width) host.replaceChildren(draw(width));
  }
});
addEventListener("afterprint", () => { for (const { redraw } of charts) redraw(); });

// A frame with linear axes. `rows` replaces the y axis by named rows; `whole` keeps x to whole numbers.
class Plot {
  constructor(width, height, { x, y, xTitle, yTitle, label, left = 46, rows = null, right = 14, whole = false }) {
    this.x = x;
    this.y = y;
    const highest = yTitle ? 28 : 8, lowest = height - 40;
    const up = rows ? { values: [] } : ticks(y[0], y[1], Math.max(3, Math.floor((lowest - highest) / 48)));
    // As wide as the longest tick needs.
    const room = Math.max(left, ...up.values.map((value) => 14 + 7 * fixed(value, up.digits).length));
    this.box = { left: room, right: width - right, top: highest, bottom: lowest };
    this.node = svg("svg", { viewBox: `0 0 ${width} ${height}`, width: "100%", height, role: "group", "aria-label": label });
    const { left: l, right: r, top, bottom } = this.box;
    const across = ticks(x[0], x[1], Math.max(3, Math.floor((r - l) / 90)), whole);
    for (const value of across.values) {
      this.node.append(
        svg("line", { class: "grid", x1: this.px(value), x2: this.px(value), y1: top, y2: bottom }),
        svg("text", { class: "tick", x: this.px(value), y: bottom + 16, "text-anchor": "middle" }, fixed(value, across.digits)),
      );
    }
    if (rows) {
      rows.forEach((name, index) => {
        this.node.append(svg("text", { class: "row", x: l - 8, y: this.row(index, rows.length) + 4, "text-anchor": "end" }, name));
      });
    } else {
      for (const value of up.values) {
        this.node.append(
          svg("line", { class: "grid", x1: l, x2: r, y1: this.py(value), y2: this.py(value) }),
          svg("text", { class: "tick", x: l - 8, y: this.py(value) + 4, "text-anchor": "end" }, fixed(value, up.digits)),
        );
      }
    }
    this.node.append(svg("line", { class: "axis", x1: l, x2: r, y1: bottom, y2: bottom }));
    if (yTitle) this.node.append(svg("text", { class: "title", x: rows ? l : 2, y: 13 }, yTitle));
    if (xTitle) this.node.append(svg("text", { class: "title", x: r, y: height - 4, "text-anchor": "end" }, xTitle));
    const id = `clip${Plot.count++}`;
    this.node.append(svg("clipPath", { id }, svg("rect", { x: l, y: top - 6, width: r - l + 6, height: bottom - top + 6 })));
    this.marks = svg("g", { "clip-path": `url(#${id})` });
    this.node.append(this.marks);
  }
  px(value) { return this.box.left + ((value - this.x[0]) / (this.x[1] - this.x[0])) * (this.box.right - this.box.left); }
  py(value) { return this.box.bottom - ((value - this.y[0]) / (this.y[1] - this.y[0])) * (this.box.bottom - this.box.top); }
  row(index, count) { return this.box.top + ((index + 0.5) / count) * (this.box.bottom - this.box.top); }
  add(...nodes) { this.marks.append(...nodes); }
  line(x1, y1, x2, y2, cls) {
    this.add(svg("line", { class: cls, x1: this.px(x1), y1: this.py(y1), x2: this.px(x2), y2: this.py(y2) }));
  }
  path(points, cls, step = false) { this.paths([points], cls, step); }
  // Many lines as one element: a thousand of them would cost as many style computations.
  paths(lines, cls, step = false) {
    const parts = [];
    for (const points of lines) {
      points.forEach(([x, y], index) => {
        const px = this.px(x).toFixed(1), py = this.py(y).toFixed(1);
        parts.push(index === 0 ? `M${px} ${py}` : step ? `H${px}V${py}` : `L${px} ${py}`);
      });
    }
    if (parts.length) this.add(svg("path", { class: cls, d: parts.join("") }));
  }
}
Plot.count = 0;

const SHAPES = {
  circle: (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`,
  square: (r) => `M${-r} ${-r}H${r}V${r}H${-r}Z`,
  triangle: (r) => `M0 ${-1.2 * r}L${1.15 * r} ${0.85 * r}H${-1.15 * r}Z`,
  inverted: (r) => `M0 ${1.2 * r}L${1.15 * r} ${-0.85 * r}H${-1.15 * r}Z`,
  diamond: (r) => `M0 ${-1.35 * r}L${1.35 * r} 0L0 ${1.35 * r}L${-1.35 * r} 0Z`,
  cross: (r) => `M${-r} ${-r}L${r} ${r}M${-r} ${r}L${r} ${-r}`,
};
const ROLE_SHAPES = { plain: "square", all_se_16: "triangle", native: "diamond", last_stage: "inverted" };
const glyph = (x, y, shape, r, attributes) => svg("path", { d: SHAPES[shape](r), transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`, ...attributes });

function legend(entries) {
  return html("ul", { class: "legend" }, entries.map(([shape, cls, text]) =>
    html("li", {}, svg("svg", { viewBox: "-9 -9 18 18", width: 16, height: 16, "aria-hidden": "true" },
      shape === "line" ? svg("line", { class: cls, x1: -9, x2: 9, y1: 0, y2: 0 }) : glyph(0, 0, shape, 5.5, { class: cls })), text)));
}

// Places for labels: beside their marks, on no obstacle and no other label; earlier labels choose first. The algorithm and
// its constants (in points) are those of se_nas/report/labels.py, and a test compares the two in a browser.
// labels: [x, y] of the mark, width and height of the text; obstacles and bounds: [left, top, right, bottom]; all in pixels.
// Returns { box, leader } for each label, or null if it has no free place.
const POINT = 96 / 72, GAP = 6 * POINT, MARGIN = 1.5 * POINT, RINGS = 24, NEAR = 2;
const DIRECTIONS = [
  [1, 0], [-1, 0], [1, -1], [1, 1], [-1, -1], [-1, 1], [0, -1], [0, 1],
  [1, -0.5], [1, 0.5], [-1, -0.5], [-1, 0.5], [0.5, -1], [0.5, 1], [-0.5, -1], [-0.5, 1],
];
const overlaps = (a, b) => a[0] < b[2] && a[2] > b[0] && a[1] < b[3] && a[3] > b[1];
function alongLine([x1, y1, x2, y2]) {
  const count = Math.max(1, Math.floor(Math.max(Math.abs(x2 - x1), Math.abs(y2 - y1)) / (3 * POINT)));
  return Array.from({ length: count }, (_, step) => {
    const x = x1 + ((x2 - x1) * step) / count, y = y1 + ((y2 - y1) * step) / count;
    return [x - POINT, y - POINT, x + POINT, y + POINT];
  });
}
function labelPlaces(labels, obstacles, [left, top, right, bottom]) {
  const taken = [...obstacles], texts = [];
  const free = ([x, y, width, height]) => {
    for (let ring = 0; ring < RINGS; ring++) {
      const gap = GAP * (ring + 1);
      for (const [across, down] of DIRECTIONS) {
        const l = x + gap * across - (across > 0 ? 0 : across < 0 ? width : width / 2);
        const t = y + gap * down - (down > 0 ? 0 : down < 0 ? height : height / 2);
        const box = [l, t, l + width, t + height];
        if (box[0] < left || box[1] < top || box[2] > right || box[3] > bottom || taken.some((other) => overlaps(box, other))) continue;
        const leader = ring >= NEAR ? [x, y, Math.min(Math.max(x, box[0]), box[2]), Math.min(Math.max(y, box[1]), box[3])] : null;
        if (leader && alongLine(leader).some((part) => texts.some((other) => overlaps(part, other)))) continue;
        return { box, leader };
      }
    }
    return null;
  };
  return labels.map((label) => {
    const spot = free(label);
    if (!spot) return null;
    const [l, t, r, b] = spot.box, kept = [l - MARGIN, t - MARGIN, r + MARGIN, b + MARGIN];
    texts.push(kept);
    taken.push(kept, ...(spot.leader ? alongLine(spot.leader) : []));
    return spot;
  });
}

// Labels of marks in a plot. `items`: marks with their text; `segments`: lines along the axes and points that no label may
// lie on, in pixels: both ends, and half of the width.
const ruler = document.createElement("canvas").getContext("2d");
function placeLabels(plot, items, segments) {
  ruler.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const obstacles = segments.map(([x1, y1, x2, y2, half]) => {
    const room = half + MARGIN;
    return [Math.min(x1, x2) - room, Math.min(y1, y2) - room, Math.max(x1, x2) + room, Math.max(y1, y2) + room];
  });
  const { left, right, top, bottom } = plot.box;
  const labels = items.map(({ x, y, text }) => [x, y, ruler.measureText(text).width + 2, 14]);
  labelPlaces(labels, obstacles, [left, top - 6, right, bottom]).forEach((spot, index) => {
    if (!spot) return;
    const { text, cls } = items[index], { box, leader } = spot;
    if (leader) plot.node.append(svg("line", { class: "leader", x1: leader[0], y1: leader[1], x2: leader[2], y2: leader[3] }));
    plot.node.append(svg("text", { class: `label ${cls || ""}`, x: box[0] + 1, y: box[3] - 3, "aria-hidden": "true" }, text));
  });
}

// One tooltip for the page; marks name their content with data-tip or data-number.
function tooltip(content) {
  const tip = html("div", { id: "tip", role: "tooltip", hidden: true });
  document.body.append(tip);
  const hide = () => { tip.hidden = true; };
  const show = (mark, x, y) => {
    const node = content(mark);
    if (!node) return hide();
    tip.replaceChildren(node);
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const left = x + 16 + width > innerWidth - 8 ? x - 16 - width : x + 16;
    tip.style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`;
    tip.style.top = `${Math.max(8, Math.min(y + 12, innerHeight - height - 8))}px`;
  };
  const markOf = (event) => (event.target.closest ? event.target.closest("[data-tip], svg [data-number]") : null);
  document.addEventListener("pointerover", (event) => {
    const mark = event.pointerType === "touch" ? null : markOf(event);
    if (mark) show(mark, event.clientX, event.clientY); else hide();
  });
  document.addEventListener("focusin", (event) => {
    const mark = markOf(event);
    if (!mark || !mark.matches(":focus-visible")) return hide();
    const box = mark.getBoundingClientRect();
    show(mark, box.right, box.bottom);
  });
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  addEventListener("scroll", hide, { passive: true });
  return hide;
}

// Sorting by the buttons that this puts into the heads of tables; numbers by data-sort, empty cells last.
function sortable(table) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = html("button", { type: "button", class: "sort", title: "Sort by this column" }, ...head.childNodes);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = [...body.rows].map((row) => {
        const cell = row.cells[column];
        return [cell.dataset.sort === undefined ? cell.textContent.trim().toLowerCase() : cell.dataset.sort === "" ? "" : Number(cell.dataset.sort), row];
      });
      const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
      keyed.sort(([a], [b]) => (a === "" ? (b === "" ? 0 : 1) : b === "" ? -1 : down ? order(b, a) : order(a, b)));
      body.append(...keyed.map(([, row]) => row));
    });
  });
}

function copyButtons() {
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(source.textContent.trim());
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(source);
        button.textContent = "Selected: press Ctrl+C";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2500);
    });
  }
}
