"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byNumber = new Map();
for (const candidate of data.candidates) {
  byNumber.set(candidate.number, candidate);
  candidate.shape = ROLE_SHAPES[candidate.role] || "circle";
  candidate.shown = candidate.accuracy ?? candidate.search;
}
const onFront = data.front.map((number) => byNumber.get(number));
const notable = [...onFront, ...data.candidates.filter((c) => c.role && !c.front)];
// The 95 % interval that is drawn: of a single reading, that over the choice of images.
const bandOf = (candidate) => candidate.interval || candidate.images;
const costOf = (candidate, name) => candidate.costs[name]?.value ?? null;
const axisOf = (name) => data.axes.find((axis) => axis.name === name);
const short = (candidate) => candidate.baselines[0] || `#${candidate.number}`;
const describeMark = (c) => `Trial ${c.number}: ${c.name}, ${fixed(c.shown, 2)} %`;

// γ as opacity of one hue: readable without telling colours apart, and its number stands in the cell.
const nominal = (ratio) => 2 ** Math.max(0, Math.round(Math.log2(ratio)));
const strength = (ratio) => Math.max(0.18, Math.min(1, 1.12 - 0.17 * Math.log2(nominal(ratio))));

function drawing(candidate) {
  const sites = data.stages[candidate.position] || [];
  if (sites.length !== candidate.widths.length) return html("p", {}, candidate.placement);
  const stages = new Map();
  sites.forEach((site, index) => {
    if (!stages.has(site[0])) stages.set(site[0], []);
    stages.get(site[0]).push([site, candidate.widths[index]]);
  });
  return html("div", { class: "drawing" }, [...stages].map(([stage, members]) => {
    const [, , channels, resolution] = members[0][0];
    return html("div", { class: "stage" },
      html("span", {}, `stage ${stage} · ${resolution}²`),
      html("span", { class: "blocks", title: `${channels} channels` }, members.map(([site, width]) =>
        html("span", { class: `block ${width > 0 ? "se" : width < 0 ? "kept" : ""}`,
          title: `${site[6]}: ${width > 0 ? `SE, hidden width ${width} of ${site[2]} channels` : width < 0 ? `${site[4]} kept` : "no SE"}` },
          width > 0 ? width : width < 0 ? site[4] : "–"))));
  }));
}

function numbers(c) {
  const costs = data.costs.filter(({ name }) => c.costs[name]).map(({ name, unit, word, digits }) => {
    const { value, ratio, predicted } = c.costs[name];
    return `${predicted ? "≈" : ""}${fixed(value, digits)} ${unit} ${word}${ratio ? ` (×${fixed(ratio, 3)})` : ""}`;
  });
  const half = c.interval ? `±${fixed((c.interval[1] - c.interval[0]) / 2, 2)}` : "";
  return html("div", { class: "numbers" }, [
    c.shown === null ? c.state : `${fixed(c.shown, 2)}${half} %${c.accuracy === null ? " in the search" : data.final ? "" : ` (${c.seeds.length} reading${c.seeds.length === 1 ? "" : "s"})`}`,
    c.gain ? `${plusMinus(c.gain, 2)} points vs plain` : null,
    ...costs,
    c.probability === null ? null : `P(non-dominated) ${fixed(c.probability, 2)}`,
  ].filter(Boolean).map((text) => html("span", {}, text)));
}

const hideTip = tooltip((mark) => {
  if (mark.dataset.tip) return html("span", {}, mark.dataset.tip);
  const candidate = byNumber.get(Number(mark.dataset.number));
  if (!candidate) return null;
  return html("div", {},
    html("b", {}, `${candidate.number} · ${candidate.name}`),
    candidate.baselines.length && candidate.placement !== candidate.name ? html("span", {}, candidate.placement) : null,
    drawing(candidate), numbers(candidate),
    html("small", { class: "note" }, "Block numbers are hidden widths of SE. Click for curves and export."));
});

// ---- the front
const state = { axis: data.cost, seeds: true, outliers: false };

// With two costs as objectives the front is a surface: two pictures of it side by side, in which the fill of
// a mark says the cost that the picture leaves out.
const trade = data.axes.filter((axis) => axis.objective);
const surface = trade.length > 1;
const otherAxis = (name) => (surface ? trade.find((axis) => axis.name !== name) : null);
const shade = (other) => {
  const known = data.candidates.filter((c) => c.front || c.role).map((c) => costOf(c, other.name)).filter((value) => value !== null);
  const low = Math.min(...known), high = Math.max(...known);
  return { low, high, of: (value) => (value === null || low === high ? 1 : 0.12 + 0.88 * Math.min(1, Math.max(0, (value - low) / (high - low)))) };
};

function drawFront(name, width) {
  const axis = axisOf(name), other = otherAxis(name), dark = other ? shade(other) : null;
  const height = width < 560 ? 380 : 460;
  const rows = data.candidates.filter((c) => c.shown !== null && costOf(c, axis.name) !== null);
  const cost = (c) => costOf(c, axis.name), spread = (c) => c.costs[axis.name].interval;
  const side = (c) => spread(c) || [cost(c), cost(c)];
  let inside = rows;
  if (!state.outliers) {
    const core = rows.filter((c) => c.front || c.role);
    const sorted = rows.map((c) => c.shown).sort((a, b) => a - b);
    const floor = Math.min(...core.map((c) => bandOf(c)?.[0] ?? c.shown), sorted[Math.floor(sorted.length * 0.05)] ?? Infinity);
    inside = rows.filter((c) => c.shown >= floor);
  }
  const plot = new Plot(width, height, {
    x: extent(inside.flatMap(side)),
    y: extent(inside.flatMap((c) => [c.shown, ...((c.front || c.role ? bandOf(c) : c.interval) || [])]).concat(state.seeds ? inside.flatMap((c) => c.accuracy === null ? [] : c.seeds) : [])),
    xTitle: axis.title, yTitle: axisTitle(), label: `Pareto front: accuracy against ${axis.title}; the table below has the same numbers`,
  });
  const hidden = rows.length - inside.length;
  document.getElementById("outside").textContent = hidden ? `${hidden} weaker candidate${hidden > 1 ? "s lie" : " lies"} below the plot.` : "";
  const single = axis.name === data.cost && !surface;
  const lines = [], joined = (points) => points.slice(1).map((to, index) => [points[index], to]);
  if (single) {
    const edge = onFront.map((c) => [cost(c), c.accuracy]);
    plot.path(edge, "stair", true);
    lines.push(...joined(edge));
  }
  if (surface && axis.objective) {
    let best = -Infinity;
    const edge = onFront.filter((c) => cost(c) !== null).sort((a, b) => cost(a) - cost(b) || b.accuracy - a.accuracy)
      .filter((c) => c.accuracy > best && ((best = c.accuracy), true)).map((c) => [cost(c), c.accuracy]);
    plot.path(edge, "stair projected", true);
    lines.push(...joined(edge));
  }
  const kind = (c) => (c.role ? `base${c.front ? "" : " off"}` : c.front ? "front" : c.counted && data.final ? "other" : "search");
  const order = ["search", "other", "front", "base off", "base"];
  const drawn = [...inside].sort((a, b) => order.indexOf(kind(a)) - order.indexOf(kind(b)));
  const detailed = (c) => c.front || c.role || (c.accuracy !== null && (data.final || c.seeds.length > 1));
  const barOf = (c) => (c.front || c.role ? bandOf(c) : detailed(c) ? c.interval : null);
  const dotted = (c) => detailed(c) && state.seeds && c.seeds.length > 1;
  for (const c of drawn) {
    const cls = c.role ? "base" : c.front ? "" : "other", band = barOf(c);
    if (band) plot.line(cost(c), band[0], cost(c), band[1], `whisker ${cls} ${c.interval ? "" : "images"}`);
    if (detailed(c) && spread(c)) plot.line(spread(c)[0], c.shown, spread(c)[1], c.shown, `whisker ${cls}`);
    if (dotted(c)) {
      for (const value of c.seeds) plot.add(svg("circle", { class: `seed ${cls}`, cx: plot.px(cost(c)), cy: plot.py(value), r: 2.5 }));
    }
  }
  for (const c of drawn) {
    const focus = c.front || c.role;
    plot.add(glyph(plot.px(cost(c)), plot.py(c.shown), c.shape, focus ? 6 : 4, {
      class: `point ${kind(c)}${dark && c.front ? " shaded" : ""}`, "data-number": c.number, role: "button", tabindex: focus ? 0 : -1,
      "fill-opacity": dark && c.front ? dark.of(costOf(c, other.name)).toFixed(2) : null,
      "aria-label": `${describeMark(c)}, ${fixed(cost(c), axis.digits)} ${axis.unit}${other && costOf(c, other.name) !== null ? `, ${fixed(costOf(c, other.name), other.digits)} ${other.unit}` : ""}`,
    }));
  }
  const at = (c) => [plot.px(cost(c)), plot.py(c.shown)];
  const segments = lines.flatMap(([[x1, y1], [x2, y2]]) => [[plot.px(x1), plot.py(y1), plot.px(x2), plot.py(y1), 1], [plot.px(x2), plot.py(y1), plot.px(x2), plot.py(y2), 1]]);
  for (const c of drawn) {
    const [x, y] = at(c), band = barOf(c), across = detailed(c) ? spread(c) : null;
    segments.push([x, y, x, y, c.front || c.role ? 7 : 4]);
    if (band) segments.push([x, plot.py(band[0]), x, plot.py(band[1]), 1]);
    if (across) segments.push([plot.px(across[0]), y, plot.px(across[1]), y, 1]);
    if (dotted(c)) segments.push(...c.seeds.map((value) => [x, plot.py(value), x, plot.py(value), 2.5]));
  }
  const named = [...drawn.filter((c) => c.role || c.picks.length), ...(onFront.length <= (surface ? 8 : 40) ? drawn.filter((c) => c.front && !c.role && !c.picks.length) : [])];
  placeLabels(plot, named.map((c) => ({ x: at(c)[0], y: at(c)[1], text: [short(c), ...c.picks].join(" · ") })), segments);
  return plot.node;
}
const axisTitle = () => (data.final ? "validation top-1 accuracy, % (mean over seeds)" : "validation top-1 accuracy, % (mean over readings)");

// ---- where SE ends up
function drawMap(width) {
  const rows = [...notable].sort((a, b) => (costOf(a, data.cost) ?? 0) - (costOf(b, data.cost) ?? 0));
  const position = rows.length ? rows[0].position : null;
  const sites = data.stages[position] || [];
  const shown = rows.filter((c) => c.position === position && c.widths.length === sites.length);
  if (!sites.length || !shown.length) return html("p", { class: "note" }, "This run has no list of sites.");
  const left = width < 560 ? 92 : 216, gap = 8, stages = [...new Set(sites.map((site) => site[0]))];
  const cell = Math.max(13, Math.min(34, (width - left - gap * stages.length) / sites.length)), high = 25, top = 24;
  const x = sites.map((site, index) => left + index * cell + stages.indexOf(site[0]) * gap);
  const total = x[x.length - 1] + cell + 2, height = top + shown.length * high + 4;
  const node = svg("svg", { viewBox: `0 0 ${total} ${height}`, width: total, height, role: "group", "aria-label": "SE by site and candidate; the table of all candidates says the same in words" });
  stages.forEach((stage) => {
    const first = sites.findIndex((site) => site[0] === stage), count = sites.filter((site) => site[0] === stage).length;
    const text = count * cell > 96 ? `stage ${stage} · ${sites[first][3]}²` : count * cell > 44 ? `stage ${stage}` : String(stage);
    node.append(svg("text", { class: "tick", x: x[first], y: 14 }, text));
  });
  shown.forEach((c, row) => {
    const y = top + row * high;
    const text = width < 560 ? `${c.number} · ${fixed(c.shown, 1)} %` : `${short(c)} · ${fixed(c.shown, 2)} %`;
    node.append(svg("text", { class: "row", x: 0, y: y + 16, "data-number": c.number, "font-weight": c.front ? 600 : 400 }, text));
    c.widths.forEach((w, index) => {
      const site = sites[index], ratio = w > 0 ? site[5] / w : null;
      const words = w > 0 ? `SE, hidden width ${w} of ${site[2]} channels, γ=${fixed(ratio, ratio % 1 ? 1 : 0)}` : w < 0 ? `${site[4]} kept` : "no SE";
      node.append(svg("rect", { class: `cell ${w > 0 ? "" : w < 0 ? "kept" : "none"}`, x: x[index] + 1, y: y + 1, width: cell - 2, height: high - 4, rx: 2,
        "fill-opacity": w > 0 ? strength(ratio) : 1, "data-tip": `${short(c)}, ${site[6]}: ${words}` }));
      if (w > 0 && cell >= 17) node.append(svg("text", { class: `cell-text ${strength(ratio) > 0.55 ? "inverse" : ""}`, x: x[index] + cell / 2, y: y + 15, "text-anchor": "middle" }, nominal(ratio)));
    });
  });
  return node;
}

function drawUsage(width) {
  const height = 34 + data.usage.length * 50, left = 66, right = width < 560 ? 4 : 8;
  const node = svg("svg", { viewBox: `0 0 ${width} ${height}`, width: "100%", height, role: "group", "aria-label": "Share of sites by γ in each stage, front against all candidates" });
  const room = width - left - 62 - right, rank = (label) => (label === "none" ? 1e9 : label === "kept" ? 1e8 : Number(label));
  data.usage.forEach((stage, index) => {
    [["front", "front"], ["all", "all"]].forEach(([group, text], line) => {
      const y = 6 + index * 50 + line * 20, counts = Object.entries(stage[group]).sort((a, b) => rank(a[0]) - rank(b[0]));
      const sum = counts.reduce((total, [, count]) => total + count, 0);
      if (line === 0) node.append(svg("text", { class: "row", x: 0, y: y + 21 }, `stage ${stage.stage}`));
      node.append(svg("text", { class: "tick", x: left + 30, y: y + 13, "text-anchor": "end" }, text));
      let at = left + 38;
      for (const [label, count] of counts) {
        const size = (count / sum) * room, none = label === "none", ratio = Number(label);
        const words = none ? "no SE" : label === "kept" ? "native gate kept" : `γ≈${label}`;
        node.append(svg("rect", { class: `cell ${none ? "none" : label === "kept" ? "kept" : ""}`, x: at, y, width: Math.max(0.5, size - 1), height: 17, "fill-opacity": none || label === "kept" ? 1 : strength(ratio),
          "data-tip": `stage ${stage.stage}, ${group === "front" ? "front" : "all candidates"}: ${words} at ${fixed((100 * count) / sum, 0)} % of sites` }));
        if (size > 26) node.append(svg("text", { class: `cell-text ${!none && label !== "kept" && strength(ratio) > 0.55 ? "inverse" : ""}`, x: at + size / 2, y: y + 12.5, "text-anchor": "middle" }, none ? "none" : label));
        at += size;
      }
    });
  });
  node.append(svg("text", { class: "title", x: left + 38, y: height - 8 }, width < 560 ? "share of the sites, by γ" : "share of the stage's sites, by nearest power of two of γ"));
  return node;
}

// ---- effects by stage
function drawEffects(gainOf, title, unit, cls) {
  return (width) => {
    const known = data.effects.map(gainOf).filter(Boolean);
    const plot = new Plot(width, 72 + data.effects.length * 34, {
      x: extent([0, ...known.flatMap((gain) => [gain[0] - gain[1], gain[0] + gain[1]])], 0.1), y: [0, 1],
      rows: data.effects.map((effect) => `stage ${effect.stage}`), left: 62, yTitle: title, label: title,
    });
    plot.line(0, 0, 0, 1, "zero");
    data.effects.forEach((effect, index) => {
      const y = plot.row(index, data.effects.length), gain = gainOf(effect);
      if (!gain) {
        plot.add(svg("text", { class: "tick", x: plot.px(0) + 8, y: y + 4 }, effect.note || "not known"));
        return;
      }
      const tip = `${effect.placement}: ${plusMinus(gain, 2)} ${unit}`;
      plot.add(
        svg("line", { class: `effect ${cls}`, x1: plot.px(gain[0] - gain[1]), x2: plot.px(gain[0] + gain[1]), y1: y, y2: y }),
        svg("circle", { class: `dot ${cls}`, cx: plot.px(gain[0]), cy: y, r: 5, "data-tip": tip, role: "img", "aria-label": tip }));
    });
    return plot.node;
  };
}

// Effects of single blocks: a row of cells per stage, broken into lines where the page is narrow.
function drawBlocks(width) {
  const left = width < 560 ? 54 : 66, wide = width >= 560, cell = wide ? 62 : 50, high = 40;
  const perLine = Math.max(1, Math.floor((width - left) / cell)), largest = Math.max(...data.blocks.map((b) => Math.abs(b.accuracy[0]))) || 1;
  const stages = [...new Set(data.blocks.map((b) => b.stage))];
  const node = svg("svg", { width: "100%", role: "group", "aria-label": "Effect of SE by stage and block; the table of all effects has the same numbers" });
  let y = 4;
  for (const stage of stages) {
    const members = data.blocks.filter((b) => b.stage === stage);
    node.append(svg("text", { class: "row", x: 0, y: y + 32 }, `stage ${stage}`));
    members.forEach((b, index) => {
      const [value, half] = b.accuracy, x = left + (index % perLine) * cell, top = y + Math.floor(index / perLine) * (high + 16);
      const clear = half !== null && Math.abs(value) > half;
      const tip = `SE in stage ${b.stage}, block ${b.block}: ${plusMinus(b.accuracy, 3)} points${b.cost === null ? "" : ` for ${signed(b.cost, 2)} % ${data.costs.find((cost) => cost.name === data.cost).word}`}`;
      node.append(
        svg("text", { class: "tick", x: x + cell / 2 - 1, y: top + 10, "text-anchor": "middle" }, b.block),
        svg("rect", { class: `heat ${value < 0 ? "loss" : ""} ${clear ? "" : "unclear"}`, x: x + 1, y: top + 14, width: cell - 3, height: high - 2, rx: 2,
          "fill-opacity": (0.06 + 0.44 * Math.abs(value) / largest).toFixed(2), "data-tip": tip, role: "img", "aria-label": tip, tabindex: 0 }),
        svg("text", { class: `heat-text ${clear ? "clear" : ""}`, x: x + cell / 2 - 1, y: top + (half === null ? 37 : 30), "text-anchor": "middle" }, signed(value, 2)));
      if (half !== null) node.append(svg("text", { class: "heat-text half", x: x + cell / 2 - 1, y: top + 44, "text-anchor": "middle" }, `±${fixed(half, 2)}`));
    });
    y += Math.ceil(members.length / perLine) * (high + 16) + 6;
  }
  node.setAttribute("viewBox", `0 0 ${width} ${y}`);
  node.setAttribute("height", y);
  return node;
}

// ---- how the search went
function drawHistory(width) {
  const kind = document.getElementById("history-axis").value, index = { evaluations: 0, epochs: 1, time: 2 }[kind];
  const points = data.history.filter((point) => point[index] !== null).map((point) => [index === 2 ? point[2] / 60 : point[index], point[3]]);
  if (!points.length) return html("p", { class: "note" }, "No times were recorded.");
  const plot = new Plot(width, 270, {
    x: [0, Math.max(...points.map((p) => p[0])) * 1.03], y: [0, Math.max(...points.map((p) => p[1])) * 1.08 || 1], left: 50, whole: index < 2,
    xTitle: { evaluations: "trials that ended", epochs: "epochs trained", time: "minutes since the first trial" }[kind], yTitle: "hypervolume", label: `Hypervolume over ${kind}`,
  });
  plot.path([[0, 0], ...points, [plot.x[1], points[points.length - 1][1]]], "stair", true);
  return plot.node;
}

function curvesOf(candidates) {
  return candidates.flatMap((c) => c.readings.filter((r) => r.curve.length > 1).map((reading) => ({ c, reading })));
}
function drawCurves(curves, height, label) {
  return (width) => {
    const shown = curves();
    if (!shown.length) return html("p", { class: "note" }, "No learning curves were kept.");
    const values = shown.flatMap(({ reading }) => reading.curve.map((p) => p[1]));
    const sorted = [...values].sort((a, b) => a - b);
    const plot = new Plot(width, height, {
      x: [0, Math.max(...shown.flatMap(({ reading }) => [reading.curve[reading.curve.length - 1][0]]))],
      y: extent([sorted[Math.floor(sorted.length * 0.02)], sorted[sorted.length - 1]]), whole: true, xTitle: "epoch", yTitle: "validation top-1 accuracy, %", label,
    });
    const kind = ({ c, reading }) => (reading.state === "stopped" ? "stopped" : c.front ? "front" : "");
    for (const cls of ["", "stopped", "front"]) {
      const own = shown.filter((curve) => kind(curve) === cls);
      plot.paths(own.map(({ reading }) => reading.curve), `run ${cls}`);
      for (const { c, reading } of cls === "stopped" ? own : []) {
        const [epoch, value] = reading.curve[reading.curve.length - 1];
        plot.add(glyph(plot.px(epoch), plot.py(value), "cross", 3.5, { class: "end", "data-number": c.number }));
      }
    }
    return plot.node;
  };
}

// ---- predicted and measured, selected and retrained
const drawPredicted = (measured) => (width) => {
  const percent = (ratio) => 100 * (ratio - 1);
  const range = extent(measured.pairs.flatMap((p) => [percent(p.predicted), percent(p.measured), ...(p.interval || []).map(percent)]));
  const plot = new Plot(width, 320, { x: range, y: range, xTitle: `predicted added ${measured.word}, %`, yTitle: `measured added ${measured.word}, %`, label: `Measured against predicted ${measured.word}` });
  plot.line(range[0], range[0], range[1], range[1], "ideal");
  for (const p of measured.pairs) {
    const c = byNumber.get(p.number), x = percent(p.predicted);
    if (p.interval) plot.line(x, percent(p.interval[0]), x, percent(p.interval[1]), "whisker");
    plot.add(glyph(plot.px(x), plot.py(percent(p.measured)), c.shape, 5, { class: `point ${c.role ? "base" : "front"}`, "data-number": c.number, role: "button", tabindex: 0, "aria-label": `${describeMark(c)}: predicted ${fixed(x, 2)} %, measured ${fixed(percent(p.measured), 2)} %` }));
  }
  return plot.node;
};

function drawRetrained(width) {
  const rows = [...data.retrained].sort((a, b) => b.final - a.final);
  const plot = new Plot(width, 64 + rows.length * 28, {
    x: extent(rows.flatMap((r) => [r.search, r.final, ...(r.interval || [])])), y: [0, 1], left: width < 560 ? 60 : 170,
    rows: rows.map((r) => (width < 560 ? `#${r.number}` : short(byNumber.get(r.number)))), xTitle: "validation top-1 accuracy, %", label: "Accuracy at selection and after retraining",
  });
  rows.forEach((r, index) => {
    const y = plot.row(index, rows.length), c = byNumber.get(r.number), kind = c.role ? "base" : c.front ? "front" : "other";
    if (r.interval) plot.add(svg("line", { class: `whisker ${c.role ? "base" : c.front ? "" : "other"}`, x1: plot.px(r.interval[0]), x2: plot.px(r.interval[1]), y1: y, y2: y }));
    plot.add(svg("line", { class: "move", x1: plot.px(r.search), x2: plot.px(r.final), y1: y, y2: y }),
      svg("circle", { class: "ghost", cx: plot.px(r.search), cy: y, r: 4.5, "data-tip": `search read ${fixed(r.search, 2)} %` }),
      glyph(plot.px(r.final), y, c.shape, 5.5, { class: `point ${kind}`, "data-number": c.number, role: "button", tabindex: 0, "aria-label": `${describeMark(c)}: search ${fixed(r.search, 2)} %, retrained ${fixed(r.final, 2)} %` }));
  });
  return plot.node;
}

// ---- a candidate's card
const card = document.getElementById("card");
function openCard(number) {
  const c = byNumber.get(number);
  if (!c) return;
  hideTip();
  const chart = html("div", { class: "chart" });
  const close = html("button", { type: "button", "aria-label": "Close the card" }, "Close");
  close.addEventListener("click", () => card.close());
  const heads = ["trial", "phase", "seed", "state", "epochs", "accuracy %", "loss", "test %"];
  card.replaceChildren(...[
    html("div", { class: "bar" }, html("h2", { id: "card-title" }, [`Trial ${c.number}`, ...c.baselines].join(" · ")), close),
    html("p", { class: "sub" }, [c.reason || c.placement, c.front ? "on the front" : "", c.picks.length ? `pick: ${c.picks.join(", ")}` : ""].filter(Boolean).join("; "), "."),
    drawing(c), html("p", { class: "note" }, "Numbers in blocks are hidden widths of SE; – means no SE."), numbers(c),
    c.export ? html("h3", {}, "Export") : null, c.export ? html("pre", { id: "card-export" }, c.export) : null,
    html("h3", {}, "Readings"),
    html("div", { class: "scroll" }, html("table", {},
      html("thead", {}, html("tr", {}, heads.map((text, i) => html("th", { class: i === 1 || i === 3 ? "" : "num", scope: "col" }, text)))),
      html("tbody", {}, c.readings.map((r) => html("tr", {}, [
        [r.number, "num"], [r.phase], [r.seed, "num"], [r.error ? `${r.state}: ${r.error}` : r.state], [`${r.epochs}/${r.planned}`, "num"], [fixed(r.accuracy, 2), "num"], [fixed(r.loss, 4), "num"], [fixed(r.test, 2), "num"],
      ].map(([text, cls], i) => html("td", { class: cls, "data-label": heads[i] }, text ?? ""))))))),
    curvesOf([c]).length ? html("h3", {}, "Learning curves") : null, curvesOf([c]).length ? chart : null,
    html("p", { class: "note" }, `Key ${c.key}`)].filter(Boolean));
  card.showModal();
  if (curvesOf([c]).length) responsive(chart, drawCurves(() => curvesOf([c]), 220, `Learning curves of trial ${c.number}`));
  close.focus();
}
card.addEventListener("click", (event) => { if (event.target === card) card.close(); });
document.addEventListener("click", (event) => {
  const mark = event.target.closest("[data-number]");
  if (mark && !card.contains(mark)) openCard(Number(mark.dataset.number));
});
document.addEventListener("keydown", (event) => {
  const mark = event.target.closest ? event.target.closest("svg [data-number]") : null;
  if (mark && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); openCard(Number(mark.dataset.number)); }
});

// ---- legends
function legends() {
  const entries = [["circle", "point front", "on the front"]];
  if (data.candidates.some((c) => c.role && c.front)) entries.push(["square", "point base", "baseline on the front"]);
  if (data.candidates.some((c) => c.role && !c.front)) entries.push(["square", "point base off", "baseline, dominated"]);
  if (data.final) entries.push(["circle", "point other", "retrained, dominated"]);
  entries.push(["circle", "point search", data.final ? "search reading alone" : "other candidates"]);
  if (data.intervals) entries.push(["line", `whisker ${data.candidates.some((c) => c.interval) ? "" : "images"}`, data.intervals]);
  document.getElementById("front-legend")?.append(legend(entries));
  document.getElementById("curves-legend")?.append(legend([["line", "run front", "on the front"], ["line", "run", "ran to the end"], ["cross", "end", "stopped early"]]));
}

// What the fill of the marks stands for, under each of the two pictures.
function shades() {
  if (!surface) return;
  for (const [id, name] of [["front-shade", state.axis], ["front-shade-2", otherAxis(state.axis).name]]) {
    const other = otherAxis(name), { low, high, of } = shade(other);
    const steps = low === high ? [low] : [low, (low + high) / 2, high];
    document.getElementById(id).replaceChildren(html("span", {}, `Fill by ${other.title}:`), html("ul", { class: "legend" }, steps.map((value) =>
      html("li", {}, svg("svg", { viewBox: "-9 -9 18 18", width: 16, height: 16, "aria-hidden": "true" },
        glyph(0, 0, "circle", 5.5, { class: "point front shaded", "fill-opacity": of(value).toFixed(2) })), fixed(value, other.digits)))));
  }
}

// A candidate under the pointer or the focus is marked in every picture that shows it.
function link(event) {
  for (const mark of document.querySelectorAll(".point.linked")) mark.classList.remove("linked");
  const mark = event.target.closest ? event.target.closest("svg .point[data-number]") : null;
  if (!mark) return;
  for (const same of document.querySelectorAll(`svg .point[data-number="${mark.dataset.number}"]`)) same.classList.add("linked");
}
document.addEventListener("pointerover", link);
document.addEventListener("focusin", link);

// ---- wiring
legends();
const chart = (id, draw) => { const host = document.getElementById(id); return host ? responsive(host, draw) : () => {}; };
if (data.candidates.some((c) => c.shown !== null)) {
  const first = chart("front-chart", (width) => drawFront(state.axis, width));
  const second = surface ? chart("front-chart-2", (width) => drawFront(otherAxis(state.axis).name, width)) : () => {};
  const redraw = () => { first(); second(); shades(); };
  shades();
  const select = document.getElementById("front-axis");
  select.addEventListener("change", () => { state.axis = select.value; redraw(); });
  for (const name of ["seeds", "outliers"]) {
    const box = document.getElementById(`front-${name}`);
    if (box) box.addEventListener("change", () => { state[name] = box.checked; redraw(); });
  }
}
chart("map-chart", drawMap);
chart("usage-chart", drawUsage);
chart("effect-accuracy", drawEffects((effect) => effect.accuracy, "accuracy, points", "points", ""));
for (const { name, word } of data.costs) {
  chart(`effect-${name}`, drawEffects((effect) => effect.costs[name], `${word}, % of the plain backbone`, `% ${word}`, "cost"));
}
chart("blocks-chart", drawBlocks);
const redrawHistory = chart("history-chart", drawHistory);
document.getElementById("history-axis")?.addEventListener("change", redrawHistory);
chart("curves-chart", drawCurves(() => curvesOf(data.candidates).filter(({ reading }) => reading.phase === "search"), 300, "Learning curves of the search"));
for (const measured of data.predicted) chart(`predicted-${measured.name}`, drawPredicted(measured));
chart("retrained-chart", drawRetrained);
document.querySelectorAll("table.sortable").forEach(sortable);
copyButtons();
const filter = document.getElementById("filter");
filter?.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of document.querySelectorAll("#all-candidates tbody tr")) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
});
document.documentElement.dataset.ready = "true";
