// Reads the figures and fills the page.

function lede(data) {
  const {settings = {}, results, texts} = data, all = results[0]?.all;
  const isDecode = settings.mode === "decode";
  const perplexity = significant(all?.ppl_reference, 4);
  at("lede").append(
      make("b", {}, String(data.model || fileName(settings.model))),
      isDecode ? ", fed token by token (decode)" : ", read in batches (prefill)",
      `, context of ${plural(settings.context, "token")}. `,
      `${plural(results.length, "configuration")} of the cache read `,
      `${plural(texts.length, "text")} (${texts.join(", ")}); `,
      `${plural(all?.positions, "position")} scored, perplexity of the reference ${perplexity}.`);
  at("random-weights").hidden = !data.random_weights;
}

function legend(results) {
  const picture = (kind, width, height, ...children) =>
      make("svg:svg", {class: kind, width, height, "aria-hidden": "true"}, children);
  const step = make("svg:path", {class: "front-line", d: "M1 2H10V10H21"});
  const ring = make("svg:circle", {class: "ring", cx: 10, cy: 10, r: 8});
  const item = (...children) => at("legend").append(make("span", {}, children));
  for (const [kind, name] of Object.entries(kinds)) {
    if (results.some((r) => kindOf(r.config) === kind)) item(swatch(kind, false), name);
  }
  item(
      picture("", 22, 12, step),
      "front, marks filled: nothing has both fewer bytes and less damage");
  const known = results.find((r) => r.config.default);
  if (known) item(picture(`mark ${kindOf(known.config)}`, 20, 20, ring), "default of varve run");
}

// ---- sentences that follow from the figures alone ----------------------------------------------

const meanOf = (result) => significant(result.all.kl.mean.value);

function aboutDefault(result, byLabel) {
  const bytes = `${whole(result.bytes.per_token)} bytes per token`;
  const text = `The default, ${result.config.label}: ${bytes}, mean KL ${meanOf(result)}.`;
  const beside = byLabel.get(result.same_bytes?.config), ratio = result.same_bytes?.bytes_ratio;
  return beside ? `${text} Without a window, ${beside.config.label} has ` +
          `${signedPercent(ratio - 1)} bytes and mean KL ${meanOf(beside)} ` +
          `(${verdict(result, beside, ratio)}).` :
                  text;
}

function aboutWindows(windows, results, byLabel) {
  const equal = windows.filter((r) => !r.same_bytes.warning);
  const verdicts = equal.map((r) => verdict(r, byLabel.get(r.same_bytes.config)));
  const count = (what) => whole(verdicts.filter((v) => v === what).length);
  const plainTypes = results.filter((r) => r.config.window === 0 && !r.config.stock);
  const isBeaten = (r) => plainTypes.some(
      (other) =>
          other.bytes.per_token <= r.bytes.per_token && verdict(r, other) === "window worse");
  const beaten = whole(windows.filter(isBeaten).length);
  return `Of ${plural(windows.length, "window")}, ${whole(equal.length)} can be compared with a ` +
      `plain pair of types within 2 % of their bytes: ${count("window better")} better, ` +
      `${count("window worse")} worse, ${
             count("intervals overlap")} with intervals that overlap. ` +
      `${beaten} of all are beaten outright: types without a window do less damage with no more ` +
      "bytes, beyond both intervals.";
}

function findings(results, byLabel) {
  const front = results.filter((r) => r.on_front)
                    .map((r) => `${r.config.label} (${whole(r.bytes.per_token)} B, ${meanOf(r)})`);
  const items = [`On the front, from few bytes to many: ${front.join("; ")}.`];
  items.push(...results.filter((r) => r.config.default).map((r) => aboutDefault(r, byLabel)));
  const windows = results.filter((r) => r.config.window > 0 && byLabel.has(r.same_bytes?.config));
  if (windows.length > 0) items.push(aboutWindows(windows, results, byLabel));
  at("findings").append(...items.map((text) => make("li", {}, text)));
}

function facts(data) {
  const {settings = {}, machine = {}, texts} = data;
  const level = machine.isa && `varve level ${machine.isa}`;
  const chunks = (name, t) => `${name} (${plural(data.chunks?.[t] ?? 0, "chunk")})`;
  const rows = {
    Model: [data.model, fileName(settings.model)].filter(Boolean).join(", "),
    Vocabulary: `${whole(data.vocabulary)} tokens`,
    Context: `${whole(settings.context)} tokens; scored from position ${whole(settings.from)} on`,
    Mode: settings.mode,
    Texts: texts.map(chunks).join(", "),
    "Reference keeps": `${whole(settings.top_k)} tokens of each position`,
    Seed: settings.seed,
    Processor: [machine.cpu, machine.architecture, level].filter(Boolean).join(", "),
    Threads: whole(machine.threads),
    varve: data.version,
  };
  for (const [name, value] of Object.entries(rows)) {
    at("facts").append(make("dt", {}, name), make("dd", {}, String(value ?? none)));
  }
}

function notes(results) {
  const lost = results.filter((r) => r.rows_evicted > 0).map((r) => r.config.label);
  const left =
      results.filter((r) => !r.config.stock && r.attention_nodes === 0).map((r) => r.config.label);
  const say = (text) =>
      at("findings").append(make("li", {}, make("span", {class: "warning"}, text)));
  if (left.length > 0) say(`Attention was left to stock llama.cpp: ${left.join(", ")}`);
  if (lost.length > 0) say(`Rows in F16 were lost for want of room: ${lost.join(", ")}`);
}

function save(text) {
  const link = make("a", {
    download: "varve-eval.json",
    href: URL.createObjectURL(new Blob([text], {type: "application/json"}))
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// Sections without content go; the others are listed, below the first.
function sections() {
  for (const section of document.querySelectorAll("main > section + section")) {
    const hosts = [...section.querySelectorAll(".table")];
    if (hosts.length > 0 && hosts.every((host) => host.childElementCount === 0)) {
      section.remove();
      continue;
    }
    const title = section.querySelector("h2").textContent;
    at("sections").append(make("a", {href: `#${section.id}`}, title));
  }
}

function main() {
  const text = at("data").textContent, data = JSON.parse(text);
  data.texts ??= [];
  data.results.sort(
      (a, b) => a.bytes.per_token - b.bytes.per_token || b.all.kl.mean.value - a.all.kl.mean.value);
  const {results} = data, byLabel = new Map(results.map((result) => [result.config.label, result]));
  const rows = results.map((result) => ({result, isDefault: result.config.default === true}));
  document.title = `varve eval: ${data.model || fileName(data.settings?.model)}`;
  lede(data);
  legend(results);
  findings(results, byLabel);
  notes(results);
  allTable(rows);
  windowTable(rows, byLabel);
  textTables(rows, data.texts);
  taskTables(rows, data.reference_tasks);
  placeTables(rows);
  bytesTable(rows);
  at("top-k").textContent = whole(data.settings?.top_k);
  const missing = Math.max(0, ...results.map((r) => r.all.kl.missing_at_most ?? 0));
  at("missing").textContent = `here by at most ${significant(missing, 2)} nats in the mean.`;
  facts(data);
  sections();
  drawScatter(at("scatter"), results);
  setUpPlaces(results);
  at("save").addEventListener("click", () => save(text));
  const opened = []; // what is folded is printed too
  window.addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details:not([open])")) {
      part.open = true;
      opened.push(part);
    }
  });
  window.addEventListener("afterprint", () => {
    for (const part of opened.splice(0)) part.open = false;
  });
}

main();
