"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
// Groups differ in colour, shape and dash, so that any one of these is enough.
const SHAPE_OF = ["circle", "square", "triangle", "diamond", "inverted", "cross"];
const look = (run) => ({ shape: SHAPE_OF[run.group % SHAPE_OF.length], cls: `g${run.group % 6}` });

tooltip((mark) => (mark.dataset.tip ? html("span", {}, mark.dataset.tip) : null));

function drawFronts(width) {
  const all = data.runs.flatMap((run) => run.points);
  const floor = Math.min(...all.filter((p) => p.front || p.role).map((p) => (p.interval ? p.interval[0] : p.accuracy)));
  const shown = all.filter((p) => p.accuracy >= floor);
  const plot = new Plot(width, width < 560 ? 380 : 460, {
    x: extent(shown.map((p) => p.cost)), y: extent(shown.flatMap((p) => [p.accuracy, ...(p.interval || [])])),
    xTitle: data.axis.title, yTitle: "validation top-1 accuracy, %", label: "Fronts of the runs; the tables below have the same numbers",
  });
  for (const run of data.runs) {
    const { cls } = look(run);
    const front = run.points.filter((p) => p.front).sort((a, b) => a.cost - b.cost || a.accuracy - b.accuracy);
    plot.path([...front.map((p) => [p.cost, p.accuracy]), [plot.x[1], front[front.length - 1].accuracy]], `stair ${cls}`, true);
    for (const p of run.points) {
      if (p.interval && p.front) plot.line(p.cost, p.interval[0], p.cost, p.interval[1], `whisker ${cls}`);
    }
  }
  for (const run of data.runs) {
    const { shape, cls } = look(run);
    for (const p of [...run.points].sort((a, b) => Number(a.front) - Number(b.front))) {
      const tip = `${run.name}, trial ${p.number}: ${p.name}, ${fixed(p.accuracy, 2)} %, ${fixed(p.cost, data.axis.digits)} ${data.axis.unit}`;
      plot.add(glyph(plot.px(p.cost), plot.py(p.accuracy), shape, p.front ? 5.5 : 3.5, {
        class: `mark ${cls} ${p.front ? "" : "off"}`, "data-tip": tip, role: "img", tabindex: p.front ? 0 : -1, "aria-label": tip,
      }));
    }
  }
  return plot.node;
}

function drawDifference(pair) {
  return (width) => {
    const known = pair.low[0] !== null;
    const plot = new Plot(width, 280, {
      x: extent(pair.budgets, 0.03), y: extent([0, ...pair.value, ...(known ? [...pair.low, ...pair.high] : [])]),
      xTitle: data.axis.title, yTitle: "points of accuracy", label: `Accuracy at equal cost: ${pair.title}`,
    });
    const end = plot.x[1];
    if (known) {
      const steps = (values) => pair.budgets.flatMap((b, i) => [[b, values[i]], [pair.budgets[i + 1] ?? end, values[i]]]);
      const outline = [...steps(pair.high), ...steps(pair.low).reverse()];
      plot.add(svg("path", { class: "band", d: `M${outline.map(([x, y]) => `${plot.px(x).toFixed(1)} ${plot.py(y).toFixed(1)}`).join("L")}Z` }));
    }
    plot.line(plot.x[0], 0, end, 0, "zero");
    plot.path([...pair.budgets.map((b, i) => [b, pair.value[i]]), [end, pair.value[pair.value.length - 1]]], "stair", true);
    return plot.node;
  };
}

responsive(document.getElementById("fronts-chart"), drawFronts);
const groups = new Map(data.runs.map((run) => [run.group, run]));
document.getElementById("fronts-legend").append(legend([...groups].map(([group, run]) => {
  const members = data.runs.filter((other) => other.group === group).map((other) => other.name);
  return [look(run).shape, `mark ${look(run).cls}`, members.join(", ")];
})));
for (const pair of data.pairs) {
  const host = html("div", { class: "chart" });
  document.getElementById("differences").append(html("h3", {}, pair.title), html("figure", {}, host));
  responsive(host, drawDifference(pair));
}
document.querySelectorAll("table.sortable").forEach(sortable);
document.documentElement.dataset.ready = "true";
