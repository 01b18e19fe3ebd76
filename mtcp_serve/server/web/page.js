// The page: an image goes to the gateway, its answer to every view.

import { showModels } from "./about.js";
import { Answer } from "./maps.js";
import { Api, ApiError } from "./api.js";
import { CameraPanel } from "./camera.js";
import { Colors } from "./colors.js";
import { Cutout, TRANSPARENT } from "./cutout.js";
import { $ } from "./dom.js";
import { FILES, NEEDS, save } from "./downloads.js";
import { Enlarged } from "./enlarge.js";
import { Feed, Work } from "./feed.js";
import { Grid } from "./grid.js";
import { listenForImages } from "./inputs.js";
import { askKey } from "./keyform.js";
import { Known } from "./known.js";
import { Legend } from "./legend.js";
import { Overlay } from "./overlay.js";
import { InputImage } from "./input_image.js";
import { Probe } from "./probe.js";
import { Roll } from "./roll.js";
import { Scene } from "./scene.js";
import { advice, sentence } from "./sentences.js";
import { listenForCopies, showSnippets } from "./snippets.js";
import { Sureness } from "./sureness.js";
import { tabs } from "./tabs.js";
import { milliseconds, showTimings } from "./timings.js";

const MOST_PIXELS = 1_000_000; // maps as large as the image up to here (37 MB), as the model gives them beyond

const api = new Api({ askKey, onWait });
const probe = new Probe();
const legend = new Legend($("legend"));
const { picture, overlay, outline } = legend;
const enlarged = new Enlarged($("enlarged"), probe, { picture, closed: (name) => views.maps.focus(name) });
const views = {
  maps: new Grid($("view-maps"), probe, {
    picture,
    enlarge: (name) => enlarged.open(answer, name),
    download: (name, color) => download(color ? FILES.color : FILES.values, name),
  }),
  overlay: new Overlay($("view-overlay"), probe, { picture, overlay, outline }),
  scene: new Scene($("view-scene"), picture),
  cutout: new Cutout($("view-cutout"), cutOutToSee, cutOutToKeep),
};
const known = new Known($("view-scene"), views.scene.measure);
const colors = new Colors($("colors"), fail);
const sureness = new Sureness($("sureness"));
const camera = new CameraPanel({
  predict: (blob, name, feed = null) => predict(blob, name, { feed }),
  query: () => queryFor(null),
  feed: () => new Feed(api),
  fail,
  refuse,
});
const roll = new Roll({ choose, fetch: zipOf, say, fail });
let answer = null;
let view = "maps";
let running = null; // the Work under way, with the blob, name and source of its image
let waiting = ""; // what was said last of a wait

legend.addEventListener("change", () => {
  if (view !== "cutout") views[view].draw();
  if ($("enlarged").open) enlarged.show(answer);
});
tabs($("tabs"), (name) => {
  view = name;
  sureness.show(view);
  if (answer) views[view].show(answer);
});
colors.addEventListener("change", () => {
  if (answer) show(answer);
});
listenForImages((images) => {
  camera.endLive();
  roll.start(images);
  predict(images[0].blob, images[0].name, { item: roll.shown });
}, refuse);
for (const option of [$("size"), $("model")]) {
  option.addEventListener("change", askAgain);
}
known.addEventListener("change", askAgain);
sureness.addEventListener("change", () => {
  const said = running === null && answer !== null && saysHowSure(answer);
  if (sureness.on && !said) askAgain();
  else if (answer) show(answer);
});
for (const button of document.querySelectorAll("[data-file]")) {
  button.addEventListener("click", () => download(FILES[button.dataset.file]));
}
listenForCopies();
$("problem-close").addEventListener("click", () => ($("problem").hidden = true));
describe();

function describe() {
  const done = () => $("models").hasChildNodes(); // by a request that was sent later
  api
    .models()
    .then((found) => done() || offer(found), (error) => done() || fail(error))
    .catch(fail);
}

function offer(found) {
  showModels(found);
  sureness.offer(found);
  known.offer(found);
}

/** The image that is shown or under way, with the parameters of now. */
function askAgain() {
  const input = running ?? answer?.input;
  if (!input || camera.live) return;
  roll.reset();
  if (roll.shown) choose(roll.shown);
  else predict(input.blob, input.name, { source: input.source });
}

/**
 * Send an image (a Blob or a promise of one) and show the answer; whether nothing went wrong. Anything else under way
 * is dropped. It may be a frame of the camera, sent over its `feed`, or an `item` of the roll, which is shown where
 * it is the chosen one. The `source` is the same whenever one image is asked for, and for all frames of a feed.
 */
async function predict(blob, name, { feed = null, item = null, source = feed ?? item ?? blob } = {}) {
  const mine = feed ?? new Work();
  if (running !== mine) running?.controller.abort();
  running = Object.assign(mine, { blob, name, source });
  mine.begin();
  if (item === null) roll.start([]);
  if (item === roll.shown) begin();
  let found = null;
  try {
    found = feed ? await askLive(mine) : await ask(mine, item ? () => {} : say);
    if (running !== mine) return false;
    if (found !== null) take(found, item);
    if (item) say(roll.waiting ? `${roll.done} of ${roll.items.length} images are done…` : `${roll.items.length} images are done.`);
    else if (!feed) say(`${found.maps.length} maps of ${name} in ${milliseconds(found.roundTrip)}.`);
    return true;
  } catch (error) {
    if (running === mine) fail(error, item);
    return false;
  } finally {
    mine.finish(found?.busy);
    if (running === mine && mine.pending === 0) {
      running = null;
      $("results").setAttribute("aria-busy", "false");
      goOn();
    }
  }
}

function begin() {
  $("problem").hidden = true; // now: what goes wrong from here on has to stay
  $("results").setAttribute("aria-busy", "true");
}

function take(found, item) {
  if (item) roll.fill(item, found);
  if (roll.shown?.state === "failed" && !roll.items.includes(answer?.input.source)) roll.show(item);
  if (item === roll.shown) show(found);
}

/** The next image of the roll, while nothing else is under way. */
function goOn() {
  const item = roll.waiting;
  if (item && !camera.live) predict(item.blob, item.name, { item });
}

function choose(item) {
  camera.endLive();
  roll.show(item);
  const kept = item.answer;
  if (kept !== null && (!sureness.on || saysHowSure(kept))) show(kept);
  else predict(item.blob, item.name, { item });
}

function saysHowSure(found) {
  return found.maps.some((map) => map.confidence !== null);
}

async function ask(work, say) {
  const { blob, name, source } = work;
  const stale = () => work.controller.signal.throwIfAborted();
  say("Reading the image…");
  const input = await InputImage.of(await blob, name, source);
  stale();
  say("Predicting…");
  const start = performance.now();
  const body = await api.predict(input.blob, queryFor(input), "arrayBuffer", work.controller.signal);
  stale();
  return new Answer(input, body, performance.now() - start);
}

/** The answer to a frame, or null where a newer one took its place. */
async function askLive(feed) {
  const { blob, name, source } = feed;
  const start = performance.now();
  const [input, body] = await Promise.all([InputImage.of(blob, name, source), feed.send(blob, queryFor(null))]);
  return body === null ? null : new Answer(input, body, performance.now() - start);
}

function show(found) {
  answer = found;
  for (const map of found.maps) {
    map.color(colors.table);
    map.doubt(sureness.on);
  }
  document.body.classList.add("answered");
  document.body.style.setProperty("--aspect", String(found.aspect));
  const has = (kind) => found.maps.some((map) => map.info.kind === kind);
  $("tab-scene").hidden = !has("depth");
  $("tab-cutout").hidden = !has("probability");
  $("colors").closest("label").hidden = !has("depth");
  if ($(`tab-${view}`).hidden) $("tab-maps").click();
  for (const [file, kind] of Object.entries(NEEDS)) {
    document.querySelector(`[data-file=${file}]`).hidden = !has(kind);
  }
  const { size, ...refined } = sized(sizeOf(found));
  const smaller = size === "input" ? {} : { size }; // the size of the image goes without saying
  const told = { ...sureness.query(found), ...known.query(found.input.source), ...modelQuery() };
  showSnippets(found.input, { ...smaller, ...refined, ...told }, api.keyed);
  known.show(found, camera.live);
  legend.show(found);
  views[view].show(found);
  if (enlarged.dialog.open) enlarged.show(found);
  probe.show(found);
  showTimings($("timings"), found);
  $("made").textContent = found.models.map((model) => `${model.name} ${model.version}`).join(", ");
  const [map] = found.maps;
  $("made-size").textContent = `${map.width} × ${map.height}`;
  if (!$("models").hasChildNodes()) describe(); // at the start there was no key, or no server
}

/** The size of what is downloaded: the image's, unless the model's was chosen. */
function sizeToKeep() {
  return $("size").value === "model" ? "model" : "input";
}

/** A file of the image that is shown. */
async function download(file, name) {
  const shown = answer;
  const depth = shown.maps.some((map) => map.info.kind === "depth" && [undefined, map.name].includes(name));
  const [parameters, fileName] = file(shown.input.stem, name, colors.query(depth));
  const solid = ["ply", "glb"].includes(parameters.format);
  const camera = solid ? views.scene.cameraQuery(shown) : {};
  const sure = ["png", "cutout"].includes(parameters.format) ? {} : sureness.query(shown, solid ? "depth" : null);
  const measured = depth && parameters.format !== "cutout" ? known.query(shown.input.source) : {};
  say(`Making ${fileName}…`);
  try {
    const query = { ...parameters, ...camera, ...sure, ...measured, ...sized(sizeToKeep(), solid), ...modelQuery() };
    save(await api.predict(shown.input.blob, query, "blob"), fileName);
    say(`${fileName} is ready.`);
  } catch (error) {
    fail(error);
  }
}

/** The zip of what `item` of the roll has, an ArrayBuffer. */
function zipOf(item) {
  const depth = answer?.maps.some((map) => map.info.kind === "depth"); // before an answer there is no choice of colours
  const [parameters] = FILES.zip("", null, colors.query(depth));
  const told = { ...sureness.query(answer), ...known.query(item), ...modelQuery() };
  const query = { ...parameters, ...told, ...sized(sizeToKeep()) };
  return api.predict(item.blob, query, "arrayBuffer");
}

/** The size of the maps of `shown`. */
function sizeOf(shown) {
  return shown.maps[0].width === shown.image.width ? "input" : "model";
}

/** The cut-out of the image of `shown`, a Blob, or null where it failed, and why is said. */
async function cutOut(shown, background, size, signal) {
  const query = { format: "cutout", background, ...sized(size), ...modelQuery() };
  try {
    return await api.predict(shown.input.blob, query, "blob", signal);
  } catch (error) {
    fail(error);
    return null;
  }
}

/** `cutOut` to look at: transparent, as large as the maps that are shown. */
function cutOutToSee(shown, signal) {
  return cutOut(shown, TRANSPARENT, sizeOf(shown), signal);
}

/** `cutOut` to download and copy; `blob` is the one that is seen, which may be smaller. */
async function cutOutToKeep(shown, background, blob) {
  if (background === TRANSPARENT && sizeOf(shown) === sizeToKeep()) return blob;
  say("Making the cut-out…");
  const made = await cutOut(shown, background, sizeToKeep());
  if (made !== null) say("The cut-out is ready.");
  return made;
}

/** What is asked for an image, or (null) for the camera's frames. */
function queryFor(input) {
  const chosen = $("size").value;
  const small = input !== null && input.pixels !== null && input.pixels <= MOST_PIXELS;
  const size = chosen !== "auto" ? chosen : small ? "input" : "model";
  const measured = input === null ? {} : known.query(input.source);
  return { format: "npz", visualize: true, ...sized(size), ...sureness.query(), ...measured, ...modelQuery() };
}

/** Maps as large as the image follow its edges, where they are not of `solid` things, which have edges of their own. */
function sized(size, solid = false) {
  return size === "input" && !solid ? { size, refine: true } : { size };
}

function modelQuery() {
  return $("model").value ? { model: $("model").value } : {};
}

/** A wait for a busy server, or (no `error`) its end: nothing else that was said meanwhile is wiped away. */
function onWait(error, seconds) {
  if (error) say((waiting = `${error.message}. Trying again in ${seconds} s.`));
  else if ($("status").textContent === waiting) say("");
}

function say(text) {
  $("status").textContent = text;
}

/** Say what went wrong, with `item` of the roll where it was that. */
function fail(error, item = null) {
  if (error.name === "AbortError") return;
  if (!(error instanceof ApiError)) console.error(error);
  const said = sentence(error.message);
  if (item) roll.failed(item, said, error.general);
  refuse(item ? `${item.name}: ${said}` : said, advice(error.hint ?? ""));
}

function refuse(message, hint) {
  say("");
  $("problem-message").textContent = message;
  $("problem-hint").textContent = hint;
  $("problem").hidden = false;
}
