// The page: choose images, send them, show the answer. Nothing is loaded from other servers and nothing is stored.
"use strict";

const byId = (id) => document.getElementById(id);
const COLUMN_NAMES = { fitzpatrick: "Fitzpatrick type", monk: "Monk tone", skin_tone: "Skin tone", body_site: "Body site", source: "Source" };
const SHOWN_CATEGORIES = 4;
const SHOWN_CONDITIONS = 4;
const SHOWN_SHARE = 0.02;

let info = null;
let nowReady = null;
const ready = new Promise((resolve) => { nowReady = resolve; }); // images chosen before the server has answered wait
let chosen = []; // { file, url }
let imageId = ""; // an image of the index as the query
let hits = [];
let opened = -1; // which hit the dialog shows, -1 for an image of the map
let openedImage = "";
let searching = 0; // number of the last search: answers to earlier ones are dropped

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function say(text, isError = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("error", isError);
}

const imageUrl = (id, side) => `/api/image?image_id=${encodeURIComponent(id)}&side=${side}`;
const percent = (share) => `${Math.round(100 * share)}\u00a0%`;

async function getJson(url, options) {
  const response = await fetch(url, options);
  const content = await response.json().catch(() => ({ error: `the server answered ${response.status}.` }));
  follow(response.headers.get("Index-Generation"));
  if (!response.ok) throw new Error(content.error || `the server answered ${response.status}.`);
  return content;
}

// The index has changed on the server: what the page knows of it is asked for again, and so is the last search.
let following = false;
async function follow(generation) {
  if (!info || !generation || generation === info.generation || following) return;
  following = true;
  try {
    info = await getJson("/api/info");
    offer();
    again();
    await drawMap();
  } catch { /* the next answer tries again */ } finally {
    following = false;
  }
}

// --- choosing -----------------------------------------------------------------------------------------------------

async function addFiles(files) {
  const images = [...files].filter((file) => file.type.startsWith("image/"));
  await ready;
  if (!images.length) return say("Choose an image file (JPEG, PNG or WebP).", true);
  const tooLarge = images.find((file) => file.size > info.image_bytes);
  if (tooLarge) return say(`An image must have at most ${info.image_bytes / 1e6} MB.`, true);
  if (chosen.length + images.length > info.max_images) return say(`At most ${info.max_images} images of one case.`, true);
  imageId = "";
  byId("text").value = "";
  chosen.push(...images.map((file) => ({ file, url: URL.createObjectURL(file) })));
  showChosen();
  search();
}

function showChosen() {
  const images = imageId ? [{ url: imageUrl(imageId, 192) }] : chosen;
  byId("chosen").replaceChildren(
    ...images.map(({ url }, place) => {
      const remove = element("button", { type: "button", textContent: "×" });
      remove.setAttribute("aria-label", `Remove image ${place + 1}`);
      remove.onclick = () => {
        if (imageId) imageId = "";
        else URL.revokeObjectURL(chosen.splice(place, 1)[0].url);
        showChosen();
      };
      return element("li", {}, element("img", { src: url, alt: `query image ${place + 1}` }), remove);
    }),
  );
}

function clearAll() {
  searching += 1;
  chosen.forEach(({ url }) => URL.revokeObjectURL(url));
  [chosen, imageId, hits] = [[], "", []];
  byId("text").value = "";
  byId("results").hidden = true;
  showChosen();
  markMap(null);
  say("");
}

// --- searching ----------------------------------------------------------------------------------------------------

function queryForm() {
  const form = new FormData();
  const text = byId("text").value.trim();
  if (imageId) form.append("image_id", imageId);
  else if (chosen.length) chosen.forEach(({ file }) => form.append("image", file, "image"));
  else if (text) form.append("text", text);
  else return null;
  for (const name of ["k", "per_condition", "aggregation", "within"]) form.append(name, byId(name).value.trim());
  for (const select of byId("filters").querySelectorAll("select")) {
    if (select.value) form.append("where", `${select.name}=${select.value}`);
  }
  return form;
}

async function search() {
  await ready;
  const form = queryForm();
  if (!form) return say(info.text ? "Choose an image or type words first." : "Choose an image first.", true);
  const number = ++searching;
  say("Searching …");
  byId("go").disabled = true;
  try {
    const found = await getJson("/api/search", { method: "POST", body: form });
    if (number !== searching) return;
    show(found);
    const lacks = found.missing ? " Cases are missing: a server of the index is down." : "";
    say((found.hits.length ? `${found.hits.length} cases found.` : "No case matches these filters.") + lacks, !!lacks);
  } catch (error) {
    if (number === searching) say(`The search failed: ${error.message}`, true);
  } finally {
    if (number === searching) byId("go").disabled = false;
  }
}

function show(found) {
  hits = found.hits;
  byId("results").hidden = false;
  showAnswer(found.answer, found.levels);
  showTree(found);
  byId("hits").replaceChildren(...hits.map(showHit));
  markMap(found.place);
}

function showAnswer(answer, levels) {
  const shown = byId("answer");
  if (!answer) shown.textContent = "A search by words finds cases, but gives no answer: its confidence is not calibrated.";
  else if (answer.node) {
    shown.replaceChildren(element("strong", { textContent: answer.node }), ` (${answer.level})`);
  } else if (answer.unlike) shown.textContent = "No answer: unlike the images of the index.";
  else shown.textContent = answer.confidence === null ? "No answer, only cases." : "No answer: too uncertain at every level.";
  byId("reason").textContent = answer ? answer.reason : "";
}

// The tree with a bar for votes and one for the classifier: the leading categories, each with its leading conditions.
function showTree(found) {
  const sources = [found.answer && found.answer.differential, found.classifier];
  const shares = (level) => sources.map((source) => new Map(source ? source[level].map((node) => [node.name, node.share]) : []));
  const last = found.levels.length - 1;
  const [coarse, fine] = [shares(0), shares(last)];
  const leading = (maps, names) =>
    names.map((name) => [name, maps.map((map) => map.get(name) || 0)]).filter(([, [votes, probability]]) => Math.max(votes, probability) >= SHOWN_SHARE)
      .sort(([, a], [, b]) => Math.max(...b) - Math.max(...a));
  const row = ([name, [votes, probability]], first, level) => {
    const given = found.answer && found.answer.given.includes(found.levels[level]);
    const numbers = [found.answer && ["votes", given ? 0 : votes, !given ? percent(votes) : votes ? "only" : "–"], found.classifier && ["classifier", probability, percent(probability)]].filter(Boolean);
    const bars = element("span", { className: "bars" }, ...numbers.map(([kind, share]) => bar(kind, share)));
    const percents = element("span", { className: "percent" }, ...numbers.map(([, , text]) => element("span", { textContent: text })));
    return element("div", { className: first ? "node leading" : "node" }, element("span", { textContent: name }), bars, percents);
  };
  const list = element("ul");
  leading(coarse, Object.keys(info.tree)).slice(0, SHOWN_CATEGORIES).forEach((category, place) => {
    const item = element("li", {}, row(category, place === 0, 0));
    if (last > 0) {
      const conditions = leading(fine, info.tree[category[0]]).slice(0, SHOWN_CONDITIONS);
      item.append(element("ul", {}, ...conditions.map((condition) => element("li", {}, row(condition, false, last)))));
    }
    list.append(item);
  });
  byId("tree").replaceChildren(list);
  byId("classifier-key").hidden = !found.classifier;
}

function bar(kind, share) {
  const made = element("i", { className: kind });
  made.style.width = `${100 * share}%`;
  return made;
}

const facts = (of) => Object.entries(COLUMN_NAMES).filter(([name]) => of[name] && info.filters[name]).map(([name, title]) => `${title} ${of[name]}`).join(" · ");

// What a similarity is worth: numbers such as .995 and .999 say little by themselves.
function nearness(hit) {
  const closer = hit.closer_than === null ? "" : `, closer than ${(Math.floor(1000 * hit.closer_than) / 10).toFixed(1)}\u00a0% of pairs`;
  return `similarity ${hit.similarity.toFixed(3)}${closer}`;
}

function showHit(hit, place) {
  const button = element("button", { type: "button" },
    element("img", { src: imageUrl(hit.image_id, 192), alt: "", loading: "lazy" }),
    element("strong", { textContent: `${place + 1}. ${hit.condition}` }),
    element("span", { textContent: hit.path.slice(0, -1).join(" › ") }),
    element("span", { className: "soft", textContent: nearness(hit) }),
    element("span", { className: "soft", textContent: facts(hit) }));
  button.setAttribute("aria-label", `Case ${place + 1}: ${hit.condition}, ${nearness(hit)}. Open next to the query.`);
  button.onclick = () => openHit(place);
  return element("li", {}, button);
}

// --- a case next to the query -------------------------------------------------------------------------------------

function openHit(place) {
  opened = place;
  openCase(hits[place].image_id, `rank ${place + 1}, ${nearness(hits[place])}`);
}

async function openCase(id, extra = "") {
  try {
    const found = await getJson(`/api/case?image_id=${encodeURIComponent(id)}`);
    openedImage = id;
    byId("case-title").textContent = found.condition;
    byId("case-facts").textContent = [found.path.join(" › "), `case ${found.case_id}`, facts(found), extra].filter(Boolean).join(" · ");
    const large = (src, alt) => element("img", { src, alt });
    const query = imageId ? [large(imageUrl(imageId, 1024), "query image")] : chosen.map(({ url }) => large(url, "query image"));
    byId("case-query").replaceChildren(...(query.length ? query : [element("p", { className: "soft", textContent: byId("text").value || "No query yet." })]));
    const images = [id, ...found.images.filter((other) => other !== id)];
    byId("case-images").replaceChildren(...images.map((image) => large(imageUrl(image, 1024), `image of case ${found.case_id}`)));
    byId("why").hidden = !info.why || !query.length;
    byId("hint").textContent = "";
    byId("previous").disabled = opened <= 0;
    byId("next").disabled = opened < 0 || opened >= hits.length - 1;
    if (!byId("case").open) byId("case").showModal();
  } catch (error) {
    say(`The case could not be opened: ${error.message}`, true);
  }
}

// Which places of query and case are alike, drawn by the server on both images; asked for by hand only.
let comparing = ""; // the case that is being compared; a disabled button would lose the keyboard's focus
async function showWhy() {
  const id = openedImage;
  if (comparing === id) return;
  comparing = id;
  byId("hint").textContent = "Comparing the images place by place …";
  try {
    const found = await getJson("/api/why", { method: "POST", body: whyForm(id) });
    if (openedImage !== id) return;
    byId("case-query").querySelectorAll("img")[found.image].src = found.query;
    byId("case-images").querySelector("img").src = found.case;
    byId("hint").textContent = found.hint;
  } catch (error) {
    if (openedImage === id) byId("hint").textContent = `The images could not be compared: ${error.message}`;
  } finally {
    if (comparing === id) comparing = "";
  }
}

function whyForm(id) {
  const form = new FormData();
  form.append("case", id);
  if (imageId) form.append("image_id", imageId);
  else chosen.forEach(({ file }) => form.append("image", file, "image"));
  return form;
}

function step(by) {
  const place = opened + by;
  if (opened >= 0 && place >= 0 && place < hits.length) openHit(place);
}

function searchWith(id) {
  byId("case").close();
  clearAll();
  imageId = id;
  showChosen();
  search();
  window.scrollTo({ top: 0 });
}

// --- the map ------------------------------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";
const points = new Map(); // of each drawn image
let place = null; // of the query on the map; known once the server has computed the map

function svg(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function symbol({ colour, shape }, x, y, r, more = {}) {
  const look = { fill: colour, "fill-opacity": 0.8, ...more };
  if (shape === "square") return svg("rect", { x: x - 0.9 * r, y: y - 0.9 * r, width: 1.8 * r, height: 1.8 * r, ...look });
  if (shape === "diamond") return svg("path", { d: `M${x} ${y - 1.25 * r}l${1.25 * r} ${1.25 * r}l${-1.25 * r} ${1.25 * r}l${-1.25 * r} ${-1.25 * r}z`, ...look });
  return svg("circle", { cx: x, cy: y, r, ...look });
}

async function drawMap() {
  try {
    const map = await getJson("/api/map");
    const drawing = svg("svg", { viewBox: "-0.03 -0.03 1.06 1.06", role: "img", "aria-label": "Map of the gallery, coloured by category" });
    const used = new Set();
    points.clear();
    map.images.forEach((id, place) => {
      const category = map.categories[place];
      used.add(category);
      const mark = symbol(map.looks[category], ...map.points[place], 0.0065);
      mark.append(Object.assign(document.createElementNS(SVG, "title"), { textContent: map.names[category] }));
      mark.onclick = () => { opened = -1; openCase(id); };
      points.set(id, map.points[place]);
      drawing.append(mark);
    });
    byId("map").replaceChildren(drawing);
    byId("legend").replaceChildren(...[...used].sort((a, b) => a - b).map((category) => {
      const key = svg("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" });
      key.append(symbol(map.looks[category], 6, 6, 4, { "fill-opacity": 1 }));
      return element("li", {}, key, map.names[category]);
    }));
    if (place) markMap(place);
    else again(); // a search was answered before there was a map to place it on
  } catch (error) {
    byId("map").textContent = `The map could not be computed: ${error.message}`;
  }
}

function markMap(placed) {
  place = placed;
  const drawing = byId("map").querySelector("svg");
  if (!drawing) return;
  drawing.querySelectorAll(".mark").forEach((mark) => mark.remove());
  if (!place) return;
  for (const hit of hits) {
    const [x, y] = points.get(hit.image_id) || [];
    if (x !== undefined) drawing.append(svg("circle", { class: "mark", cx: x, cy: y, r: 0.014, fill: "none", stroke: "currentColor", "stroke-width": 0.004, "pointer-events": "none" }));
  }
  const [x, y] = place;
  drawing.append(svg("path", { class: "mark", d: `M${x - 0.03} ${y}H${x + 0.03}M${x} ${y - 0.03}V${y + 0.03}`, stroke: "#c1121f", "stroke-width": 0.009, "pointer-events": "none" }));
}

// --- starting -----------------------------------------------------------------------------------------------------

function offer() {
  byId("holdings").textContent = `${info.images.toLocaleString("en")} images of ${info.cases.toLocaleString("en")} cases`;
  byId("disclaimer").textContent = info.disclaimer;
  byId("unlike").textContent = info.unlike ? `${info.unlike[0].toUpperCase()}${info.unlike.slice(1)}.` : "";
  byId("words").hidden = !info.text;
  byId("nodes").replaceChildren(...info.nodes.map(({ value, label }) => element("option", { value, label })));
  const before = Object.fromEntries([...byId("filters").querySelectorAll("select")].map(({ name, value }) => [name, value]));
  byId("filters").replaceChildren();
  for (const [column, values] of Object.entries(info.filters)) {
    const select = element("select", { name: column }, element("option", { value: "", textContent: "any" }), ...values.map((value) => element("option", { value, textContent: value })));
    if (values.includes(before[column])) select.value = before[column];
    select.onchange = again;
    byId("filters").append(element("label", {}, `${COLUMN_NAMES[column]} `, select));
  }
}

const again = () => { if (queryForm() && !byId("results").hidden) search(); };

function bind() {
  byId("query").onsubmit = (event) => { event.preventDefault(); search(); };
  for (const id of ["files", "camera"]) byId(id).onchange = (event) => { addFiles(event.target.files); event.target.value = ""; };
  for (const id of ["k", "per_condition", "aggregation"]) byId(id).onchange = again;
  byId("within").oninput = () => { // once it is a name, not at each letter
    const name = byId("within").value.trim();
    if (!name || info.nodes.some(({ value }) => value === name)) again();
  };
  byId("text").oninput = () => { if (byId("text").value) { chosen.forEach(({ url }) => URL.revokeObjectURL(url)); [chosen, imageId] = [[], ""]; showChosen(); } };
  byId("clear").onclick = clearAll;
  byId("close").onclick = () => byId("case").close();
  byId("previous").onclick = () => step(-1);
  byId("next").onclick = () => step(1);
  byId("why").onclick = showWhy;
  byId("use").onclick = () => searchWith(openedImage);
  byId("case").onkeydown = (event) => { if (event.key === "ArrowLeft") step(-1); if (event.key === "ArrowRight") step(1); };
  document.addEventListener("paste", (event) => { if (event.clipboardData.files.length) addFiles(event.clipboardData.files); });
  document.addEventListener("visibilitychange", () => { if (info && !document.hidden) getJson("/api/info").catch(() => {}); });
  const drop = byId("drop");
  for (const name of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.toggle("over", name === "dragover"); });
  }
  drop.addEventListener("drop", (event) => addFiles(event.dataTransfer.files));
}

async function start() {
  bind();
  try {
    info = await getJson("/api/info");
  } catch (error) {
    return say(`The server does not answer: ${error.message}`, true);
  }
  offer();
  drawMap();
  nowReady();
}

start();
