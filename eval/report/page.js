// Reads the figures and fills the page.

function lede(data) {
  const { settings = {}, results } = data, all = results[0]?.all;
  const parts = [make("b", {}, String(data.model || fileName(settings.model))), ", ",
    `${settings.mode === "decode" ? "fed token by token (decode)" : "read in batches (prefill)"}, context of ${plural(settings.context, "token")}. `,
    `${plural(results.length, "configuration")} of the cache read ${plural(data.texts.length, "text")} (`,
    data.texts.join(", "), `); ${plural(all?.positions ?? 0, "position")} scored`];
  if (isNumber(all?.ppl_reference)) parts.push(`, perplexity of the reference ${significant(all.ppl_reference, 4)}`);
  at("lede").append(...parts, ".");
}

function legend(results) {
  const present = Object.keys(kinds).filter((kind) => results.some((r) => kindOf(r.config) === kind));
  const line = make("svg:svg", { width: 22, height: 12, "aria-hidden": "true" }, make("svg:path", { class: "front-line", d: "M1 2H10V10H21" }));
  at("legend").append(...present.map((kind) => make("span", {}, swatch(kind, false), kinds[kind])),
    make("span", {}, line, "front, marks filled: nothing has both fewer bytes and less damage"),
    results.some((r) => r.config.default) ? make("span", {}, make("svg:svg", { class: "mark window", width: 20, height: 20, "aria-hidden": "true" },
      make("svg:circle", { class: "ring", cx: 10, cy: 10, r: 8 })), "default of varve run") : "");
}

const inBytes = (result) => `${whole(result.bytes.per_token)} bytes per token`;
const withMean = (result) => `mean KL ${significant(result.all.kl.mean.value)}`;

// Sentences that follow from the figures alone.
function findings(results, byLabel) {
  const items = [];
  const front = results.filter((r) => r.on_front).sort((a, b) => a.bytes.per_token - b.bytes.per_token);
  items.push(`On the front, from few bytes to many: ${front.map((r) => `${r.config.label} (${whole(r.bytes.per_token)} B, ` +
    `${significant(r.all.kl.mean.value)})`).join("; ")}.`);
  for (const r of results.filter((one) => one.config.default)) {
    const beside = byLabel.get(r.same_bytes?.config);
    items.push(`The default, ${r.config.label}: ${inBytes(r)}, ${withMean(r)}` + (beside ? `. Without a window, ${beside.config.label} has ` +
      `${signedPercent(r.same_bytes.bytes_ratio - 1)} bytes and ${withMean(beside)} (${verdict(r.all.kl.mean, beside.all.kl.mean)}).` : "."));
  }
  const windows = results.filter((r) => r.config.window > 0 && byLabel.has(r.same_bytes?.config));
  if (windows.length > 0) {
    const equal = windows.filter((r) => !r.same_bytes.warning);
    const count = (what) => equal.filter((r) => verdict(r.all.kl.mean, byLabel.get(r.same_bytes.config).all.kl.mean) === what).length;
    const beaten = windows.filter((r) => results.some((other) => other.config.window === 0 && !other.config.stock &&
      other.bytes.per_token <= r.bytes.per_token && verdict(r.all.kl.mean, other.all.kl.mean) === "window worse")).length;
    items.push(`Of ${plural(windows.length, "window")}, ${whole(equal.length)} can be compared with a plain pair of types within 2 % of their bytes: ` +
      `${whole(count("window better"))} better, ${whole(count("window worse"))} worse, ${whole(count("intervals overlap"))} with intervals that overlap. ` +
      `${whole(beaten)} of all are beaten outright: types without a window do less damage with no more bytes, beyond both intervals.`);
  }
  at("findings").append(...items.map((text) => make("li", {}, text)));
}

function facts(data) {
  const { settings = {}, machine = {} } = data;
  const rows = [
    ["Model", `${data.model ? `${data.model}, ` : ""}${fileName(settings.model)}`],
    ["Vocabulary", `${whole(data.vocabulary)} tokens`],
    ["Context", `${whole(settings.context)} tokens; positions from ${whole(settings.from)} on are scored`],
    ["Mode", settings.mode],
    ["Texts", data.texts.map((name, t) => `${name} (${plural(data.chunks?.[t] ?? 0, "chunk")})`).join(", ")],
    ["Reference keeps", `${whole(settings.top_k)} tokens of each position`],
    ["Seed", String(settings.seed ?? none)],
    ["Processor", [machine.cpu, machine.architecture, machine.isa && `varve level ${machine.isa}`].filter(Boolean).join(", ")],
    ["Threads", whole(machine.threads)],
    ["varve", String(data.version ?? none)],
  ];
  at("facts").append(...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value ?? none))]));
}

function notes(results) {
  const lost = results.filter((r) => r.rows_evicted > 0).map((r) => r.config.label);
  const left = results.filter((r) => !r.config.stock && r.attention_nodes === 0).map((r) => r.config.label);
  const say = (text) => at("findings").append(make("li", {}, make("span", { class: "warning" }, text)));
  if (left.length > 0) say(`Attention was left to stock llama.cpp: ${left.join(", ")}`);
  if (lost.length > 0) say(`Rows in F16 were lost for want of room: ${lost.join(", ")}`);
}

function save(text) {
  const link = make("a", { download: "varve-eval.json", href: URL.createObjectURL(new Blob([text], { type: "application/json" })) });
  link.click();
  URL.revokeObjectURL(link.href);
}

// Sections without content go; the others are listed.
function sections() {
  for (const section of document.querySelectorAll("main > section")) {
    const hosts = [...section.querySelectorAll(".table")];
    if (hosts.length > 0 && hosts.every((host) => host.childElementCount === 0)) { section.remove(); continue; }
    at("sections").append(make("a", { href: `#${section.id}` }, section.querySelector("h2").textContent));
  }
}

function main() {
  const text = at("data").textContent, data = JSON.parse(text);
  data.texts ??= [];
  data.results.sort((a, b) => a.bytes.per_token - b.bytes.per_token || b.all.kl.mean.value - a.all.kl.mean.value);
  const { results } = data, byLabel = new Map(results.map((result) => [result.config.label, result]));
  const rows = results.map((result) => ({ result, isDefault: result.config.default === true }));
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
  at("missing").textContent = `here by at most ${significant(Math.max(0, ...results.map((r) => r.all.kl.missing_at_most ?? 0)), 2)} nats in the mean.`;
  facts(data);
  sections();
  drawScatter(at("scatter"), results);
  setUpPlaces(results);
  at("save").addEventListener("click", () => save(text));
  const opened = []; // what is folded is printed too
  window.addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details:not([open])")) { part.open = true; opened.push(part); }
  });
  window.addEventListener("afterprint", () => { for (const part of opened.splice(0)) part.open = false; });
}

main();
