// The picture: mean divergence over bytes per token.

// Places of labels beside their points: (dx, dy) of the anchor, "start", "middle" or "end".
const labelPlaces = [9, 22, 38].flatMap(
    (d) => [
        [d, 4, "start"],
        [-d, 4, "end"],
        [d * 0.75, -d * 0.75, "start"],
        [-d * 0.75, -d * 0.75, "end"],
        [d * 0.75, d * 0.75 + 8, "start"],
        [-d * 0.75, d * 0.75 + 8, "end"],
        [0, -d - 2, "middle"],
        [0, d + 9, "middle"],
]);

const overlap = (a, b) => Math.max(0, Math.min(a.right, b.right) - Math.max(a.left, b.left)) *
    Math.max(0, Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));

// Greedy: each label, the important ones first, takes the place where it covers least. One that
// would cover another is left out unless it must be there; its figures are a tap away.
function placeLabels(points, lines, area) {
  const taken = points.map((p) => ({left: p.x - 7, right: p.x + 7, top: p.y - 7, bottom: p.y + 7}));
  const bars = [
    ...lines,
    ...points.filter((p) => p.bar)
        .map((p) => ({left: p.x - 2, right: p.x + 2, top: p.bar[0], bottom: p.bar[1]}))
  ];
  const placed = [];
  for (const p of [...points].sort((a, b) => b.weight - a.weight)) {
    const width = textWidth(p.text, p.isDefault);
    let best = null;
    labelPlaces.forEach(([dx, dy, anchor], i) => {
      const left = p.x + dx - (anchor === "end" ? width : anchor === "middle" ? width / 2 : 0);
      const box =
          {left: left - 2, right: left + width + 2, top: p.y + dy - 11, bottom: p.y + dy + 4};
      const isOut = box.left < area.left || box.right > area.right || box.top < area.top ||
          box.bottom > area.bottom;
      const covered = taken.reduce((sum, other) => sum + overlap(box, other), 0);
      const cost = (isOut ? 1e4 : 0) + 8 * covered +
          bars.reduce((sum, bar) => sum + overlap(box, bar), 0) + 6 * i;
      if (best === null || cost < best.cost)
        best = {cost, covered, isOut, box, dx, dy, anchor, p, isFar: i >= 8};
    });
    if (p.weight < 2 && (best.covered > 25 || best.isOut)) continue;
    taken.push(best.box);
    placed.push(best);
  }
  return placed;
}

function scatterDetails(result) {
  const {all, bytes, speed} = result;
  const rows = [
    [
      "bytes per token",
      `${whole(bytes.per_token)} (${significant(bytes.bits_per_value)} bits per value)`
    ],
    ["mean KL, nats", withInterval(all.kl.mean, significant)],
    ["median", significant(all.kl.median?.value)],
    ["99 %", significant(all.kl.p99?.value)],
    ["99.9 %", significant(all.kl.p999?.value)],
    ["maximum", significant(all.kl.max)],
    ["same top token", `${percent(all.same_top?.value)} %`],
    ["perplexity ratio", decimals(4)(all.ppl_ratio?.value)],
    ["decode", `${decimals(1)(speed?.decode?.tokens_per_second)} tokens/s`],
  ];
  const beside = result.same_bytes;
  const note = [
    kinds[kindOf(result.config)], result.on_front ? "on the front" : "",
    beside ? `same bytes: ${beside.config} (${signedPercent(beside.bytes_ratio - 1)})` : ""
  ];
  return [rows, note.filter(Boolean).join("; ")];
}

// Steps from front point to front point: what the bytes up to here buy at best. As a path, and as
// boxes for labels.
function frontLine(points, right) {
  const steps = points.filter((p) => p.result.on_front).sort((a, b) => a.x - b.x || b.y - a.y);
  if (steps.length === 0) return {drawing: [], boxes: []};
  let path = `M${steps[0].x} ${steps[0].y}`;
  for (const p of steps.slice(1)) path += `H${p.x}V${p.y}`;
  path += `H${right}`;
  const boxes = steps.flatMap((p, i) => {
    const next = steps[i + 1] ?? {x: right, y: p.y};
    return [
      {left: p.x, right: next.x, top: p.y - 2, bottom: p.y + 2},
      {left: next.x - 2, right: next.x + 2, top: p.y, bottom: next.y}
    ];
  });
  return {boxes, drawing: [make("svg:path", {class: "front-line", d: path})]};
}

// Thin dotted lines through windows of the same types and sinks, from the plain type on.
function chains(points) {
  const groups = new Map();
  const typesOf = ({result: {config}}) => `${config.type_k} ${config.type_v}`;
  const isPlain = (p) => ["uniform", "mixed"].includes(kindOf(p.result.config));
  for (const p of points.filter((q) => kindOf(q.result.config) === "window")) {
    const {sinks, rotation} = p.result.config, key = [typesOf(p), sinks, rotation].join(" ");
    if (!groups.has(key)) {
      groups.set(key, points.filter((q) => isPlain(q) && typesOf(q) === typesOf(p)));
    }
    groups.get(key).push(p);
  }
  return [...groups.values()].filter((group) => group.length > 2).map((group) => {
    const path = group.sort((a, b) => a.x - b.x).map((p) => `${p.x},${p.y}`).join(" ");
    return make("svg:polyline", {class: "chain window", stroke: "currentColor", points: path});
  });
}

function drawMark(p, bottom) {
  const {result, x, y} = p, kind = kindOf(result.config);
  const mean = withInterval(result.all.kl.mean, significant);
  const node = make("svg:g", {
    class: `mark ${kind}${result.on_front ? " front" : ""}`,
    role: "img",
    "aria-label": `${p.text}: ${whole(result.bytes.per_token)} bytes per token, ` +
        `mean KL ${mean} nats${result.on_front ? ", on the front" : ""}`,
  });
  if (p.bar) {
    const y2 = Math.min(bottom, p.bar[1]);
    node.append(make("svg:line", {class: "interval", x1: x, x2: x, y1: p.bar[0], y2}));
  }
  if (p.isDefault) node.append(make("svg:circle", {class: "ring", cx: x, cy: y, r: 9.5}));
  node.append(shape(kind, x, y, 5), make("svg:circle", {class: "halo", cx: x, cy: y, r: 10}));
  return node;
}

function drawLabel({p, dx, dy, anchor}) {
  const emphasis = p.isDefault ? " default" : p.result.on_front ? "" : " behind";
  return make(
      "svg:text", {
        class: `label${emphasis}`,
        "aria-hidden": "true",
        x: p.x + dx,
        y: p.y + dy,
        "text-anchor": anchor,
      },
      p.text);
}

function drawLeader({p, dx, dy}) {
  const y2 = p.y + (dy < 0 ? dy : dy - 7) * 0.85;
  return make("svg:line", {class: "leader", x1: p.x, y1: p.y, x2: p.x + dx * 0.85, y2});
}

// Ends of both axes: room around the marks; wide intervals may leave it.
function domainOf(results) {
  const bytes = results.map((r) => r.bytes.per_token);
  const means = results.map((r) => r.all.kl.mean).filter((mean) => mean.value > 0);
  const lows = means.map((m) => Math.max(m.low ?? m.value, m.value / 4));
  const highs = means.map((m) => Math.min(m.high ?? m.value, 4 * m.value));
  return {
    x: bytes.length > 0 ? [Math.min(...bytes) / 1.06, Math.max(...bytes) * 1.1] : [1e3, 1e4],
    y: means.length > 0 ? [Math.min(...lows) / 1.35, Math.max(...highs) * 1.35] : [1e-4, 1],
  };
}

// Where a configuration is drawn; a mean of 0, which has no logarithm, in a lane of its own.
function toPoint(result, {x, y, area, lane}) {
  const {low, high, value} = result.all.kl.mean, isZero = value <= 0;
  const hasBar = !isZero && isNumber(low) && isNumber(high);
  const foot = low > 0 ? Math.min(area.bottom, y(low)) : area.bottom;
  return {
    result,
    x: x(result.bytes.per_token),
    y: isZero ? lane : y(value),
    text: result.config.label,
    isDefault: result.config.default === true,
    bar: hasBar ? [Math.max(area.top, y(high)), foot] : null,
    weight: (result.config.default ? 4 : 0) + (result.on_front ? 2 : 0) +
        (kindOf(result.config) === "uniform" ? 1 : 0),
  };
}

// What depends on the width: places of axes, scales, whether words are short.
function layOut(width, domain, hasZero) {
  const isNarrow = width < 600;
  const height = Math.round(isNarrow ? Math.max(400, 1.15 * width) : Math.min(620, 0.56 * width));
  const bottom = height - 46 - (hasZero ? 30 : 0);
  const area = {left: isNarrow ? 46 : 60, right: width - 20, top: 44, bottom};
  return {
    area,
    height,
    isNarrow,
    x: logScale(...domain.x, area.left, area.right),
    y: logScale(...domain.y, area.bottom, area.top),
    lane: hasZero ? bottom + 20 : null,
  };
}

function drawScatter(host, all) {
  const results = all.filter((r) => isNumber(r.bytes.per_token) && isNumber(r.all.kl.mean?.value));
  const domain = domainOf(results), hasZero = results.some((r) => r.all.kl.mean.value <= 0);
  const bits =
      results.length > 0 ? results[0].bytes.bits_per_value / results[0].bytes.per_token : 1;
  const noise = results.find((r) => r.config.label === "f16+stock")?.all.kl.mean.value;
  return keepDrawn(host, (width) => {
    const layout = layOut(width, domain, hasZero), {area, lane} = layout;
    const svg = make("svg:svg", {
      viewBox: `0 0 ${width} ${layout.height}`,
      role: "group",
      "aria-label": "Mean KL divergence over bytes per token, one mark for each configuration",
    });
    drawAxes(svg, {...layout, domain, bits});
    const written = noise > 0 ? drawNoise(svg, layout.y(noise), area, layout.isNarrow) : [];
    const points = results.map((result) => toPoint(result, layout));
    points.sort((a, b) => a.x - b.x || a.y - b.y);
    const front = frontLine(points, area.right);
    const labels = placeLabels(
        points, [...front.boxes, ...written], {...area, bottom: hasZero ? lane + 12 : area.bottom});
    svg.append(...front.drawing, ...chains(points));
    svg.append(...labels.filter((label) => label.isFar).map(drawLeader));
    for (const p of points) svg.append(p.node = drawMark(p, area.bottom));
    svg.append(...labels.map(drawLabel));
    reachable(svg, points.map((p) => {
      const title = p.text + (p.isDefault ? ", the default" : "");
      const show = () => showDetails(p.node, title, ...scatterDetails(p.result));
      return {node: p.node, x: p.x, y: p.y, show};
    }));
    replaceDrawing(host, svg);
  });
}

// Below the divergence of stock's F16. Returns boxes that labels had better leave free.
function drawNoise(svg, top, area, isNarrow) {
  if (top >= area.bottom || top <= area.top) return [];
  const text = isNarrow ? "below: noise of F16" :
                          "below: less than two correct F16 runs differ (stock and varve)";
  const x = area.left + 6, y = Math.min(top + 15, area.bottom - 4);
  svg.append(
      make("svg:rect", {
        class: "noise",
        x: area.left,
        y: top,
        width: area.right - area.left,
        height: area.bottom - top
      }),
      make("svg:line", {class: "noise-edge", x1: area.left, x2: area.right, y1: top, y2: top}),
      make("svg:text", {x, y}, text));
  return [
    {left: x, right: x + textWidth(text), top: y - 10, bottom: y + 3},
    {left: area.left, right: area.right, top: top - 1, bottom: top + 1},
  ];
}

function drawAxes(svg, {x, y, area, domain, bits, isNarrow, lane, height}) {
  const line = (name, x1, y1, x2, y2) =>
      svg.append(make("svg:line", {class: name, x1, y1, x2, y2}));
  const write = (text, atX, atY, anchor, name) =>
      svg.append(make("svg:text", {x: atX, y: atY, "text-anchor": anchor, class: name}, text));
  const base = lane === null ? area.bottom : lane + 14;
  if (lane !== null) {
    svg.append(make(
        "svg:rect",
        {class: "lane", x: area.left, y: lane - 14, width: area.right - area.left, height: 28}));
    write("0", area.left - 8, lane + 4, "end");
  }
  for (const value of ticks(...domain.x, x, isNarrow ? 46 : 58)) {
    line("grid", x(value), area.top, x(value), base);
    write(whole(value), x(value), base + 17, "middle");
  }
  for (const value of ticks(...domain.y, y, 22)) {
    line("grid", area.left, y(value), area.right, y(value));
    write(significant(value, 1), area.left - 8, y(value) + 4, "end");
  }
  for (const value of ticks(domain.x[0] * bits, domain.x[1] * bits, (v) => x(v / bits), 40)) {
    line("grid", x(value / bits), area.top - 4, x(value / bits), area.top);
    write(
        significant(value, value < 10 ? 2 : 3).replace(/\.0$/, ""), x(value / bits), area.top - 9,
        "middle");
  }
  write("mean KL divergence, nats", area.left - (isNarrow ? 40 : 50), 12, "start");
  write(isNarrow ? "bits per value" : "effective bits per cached value", area.right, 12, "end");
  write("bytes per token, everything counted", area.right, height - 6, "end");
}
