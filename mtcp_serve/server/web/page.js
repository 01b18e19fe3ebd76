// The page: a photo goes to the gateway, its answer to every view.

import { showModels } from "./about.js";
import { Answer } from "./maps.js";
import { Api, ApiError } from "./api.js";
import { CameraPanel } from "./camera.js";
import { Cutout } from "./cutout.js";
import { $ } from "./dom.js";
import { FILES, NEEDS, save } from "./downloads.js";
import { Enlarged } from "./enlarge.js";
import { Feed, Work } from "./feed.js";
import { Grid } from "./grid.js";
import { listenForPhotos } from "./inputs.js";
import { askKey } from "./keyform.js";
import { Legend } from "./legend.js";
import { Overlay } from "./overlay.js";
import { Photo } from "./photo.js";
import { Probe } from "./probe.js";
import { Scene } from "./scene.js";
import { advice, sentence } from "./sentences.js";
import { listenForCopies, showSnippets } from "./snippets.js";
import { tabs } from "./tabs.js";
import { milliseconds, showTimings } from "./timings.js";

const MOST_PIXELS = 1_000_000; // maps as large as the photo up to here (37 MB), as the model gives them beyond

const api = new Api({ askKey, onWait });
const probe = new Probe();
const legend = new Legend($("legend"));
const { picture, overlay } = legend;
const enlarged = new Enlarged($("enlarged"), probe, { picture, closed: (name) => views.maps.focus(name) });
const views = {
  maps: new Grid($("view-maps"), probe, {
    picture,
    enlarge: (name) => enlarged.open(answer, name),
    download: (name, colour) => download(colour ? FILES.colour : FILES.values, name),
  }),
  overlay: new Overlay($("view-overlay"), probe, { picture, overlay }),
  scene: new Scene($("view-scene"), picture),
  cutout: new Cutout($("view-cutout"), cutOut),
};
const camera = new CameraPanel({ predict, query: () => queryFor(null), feed: () => new Feed(api), fail, refuse });
let answer = null;
let view = "maps";
let running = null; // the Work under way, with the blob and name of its photo
let waiting = ""; // what was said last of a wait

legend.addEventListener("change", () => {
  if (view !== "cutout") views[view].draw();
  if ($("enlarged").open) enlarged.show(answer);
});
tabs($("tabs"), (name) => {
  view = name;
  if (answer) views[view].show(answer);
});
listenForPhotos((blob, name) => {
  camera.endLive();
  predict(blob, name);
}, refuse);
for (const option of [$("size"), $("model")]) {
  option.addEventListener("change", () => {
    const photo = running ?? answer?.photo;
    if (photo && !camera.live) predict(photo.blob, photo.name);
  });
}
for (const button of document.querySelectorAll("[data-file]")) {
  button.addEventListener("click", () => download(FILES[button.dataset.file]));
}
listenForCopies();
$("problem-close").addEventListener("click", () => ($("problem").hidden = true));
describe();

function describe() {
  const known = () => $("models").hasChildNodes(); // by a request that was sent later
  api
    .models()
    .then((found) => known() || showModels(found), (error) => known() || fail(error))
    .catch(fail);
}

/**
 * Send a photo (a Blob or a promise of one), a frame of the camera over its `feed`, and show the answer; whether
 * nothing went wrong. Anything else under way is dropped.
 */
async function predict(blob, name, feed = null) {
  const mine = feed ?? new Work();
  if (running !== mine) running?.controller.abort();
  running = Object.assign(mine, { blob, name });
  mine.begin();
  $("problem").hidden = true; // now: what goes wrong from here on has to stay
  $("results").setAttribute("aria-busy", "true");
  let found = null;
  try {
    found = feed ? await askLive(blob, name, feed) : await ask(blob, name, mine);
    if (running !== mine) return false;
    if (found !== null) show(found);
    if (!feed) say(`${found.maps.length} maps of ${name} in ${milliseconds(found.roundTrip)}.`);
    return true;
  } catch (error) {
    if (running === mine) fail(error);
    return false;
  } finally {
    mine.finish(found?.busy);
    if (running === mine && mine.pending === 0) {
      running = null;
      $("results").setAttribute("aria-busy", "false");
    }
  }
}

async function ask(blob, name, work) {
  const stale = () => work.controller.signal.throwIfAborted();
  say("Reading the photo…");
  const photo = await Photo.of(await blob, name);
  stale();
  say("Predicting…");
  const start = performance.now();
  const body = await api.predict(photo.blob, queryFor(photo), "arrayBuffer", work.controller.signal);
  stale();
  return new Answer(photo, body, performance.now() - start);
}

/** The answer to a frame, or null where a newer one took its place. */
async function askLive(blob, name, feed) {
  const start = performance.now();
  const [photo, body] = await Promise.all([Photo.of(blob, name), feed.send(blob, queryFor(null))]);
  return body === null ? null : new Answer(photo, body, performance.now() - start);
}

function show(found) {
  answer = found;
  document.body.classList.add("answered");
  document.body.style.setProperty("--aspect", String(found.aspect));
  const has = (kind) => found.maps.some((map) => map.info.kind === kind);
  $("tab-scene").hidden = !has("depth");
  $("tab-cutout").hidden = !has("probability");
  if ($(`tab-${view}`).hidden) $("tab-maps").click();
  for (const [file, kind] of Object.entries(NEEDS)) {
    document.querySelector(`[data-file=${file}]`).hidden = !has(kind);
  }
  showSnippets(found.photo);
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

/** A file of the photo that is shown; at the photo's size unless the model's was chosen. */
async function download(file, name) {
  const shown = answer;
  const [parameters, fileName] = file(shown.photo.stem, name);
  const camera = ["ply", "glb"].includes(parameters.format) ? views.scene.cameraQuery : {};
  const size = $("size").value === "model" ? "model" : "input";
  say(`Making ${fileName}…`);
  try {
    save(await api.predict(shown.photo.blob, { ...parameters, ...camera, size, ...modelQuery() }, "blob"), fileName);
    say(`${fileName} is ready.`);
  } catch (error) {
    fail(error);
  }
}

/** The cut-out of the photo of `shown`, a Blob, or null where it failed, and why is said. */
async function cutOut(shown, background) {
  const size = shown.maps[0].width === shown.image.width ? "input" : "model";
  try {
    return await api.predict(shown.photo.blob, { format: "cutout", background, size, ...modelQuery() }, "blob");
  } catch (error) {
    fail(error);
    return null;
  }
}

/** What is asked for a photo, or (null) for the camera's frames. */
function queryFor(photo) {
  const chosen = $("size").value;
  const small = photo !== null && photo.pixels !== null && photo.pixels <= MOST_PIXELS;
  return { format: "npz", visualize: true, size: chosen !== "auto" ? chosen : small ? "input" : "model", ...modelQuery() };
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

function fail(error) {
  if (error.name === "AbortError") return;
  if (!(error instanceof ApiError)) console.error(error);
  refuse(sentence(error.message), advice(error.hint ?? ""));
}

function refuse(message, hint) {
  say("");
  $("problem-message").textContent = message;
  $("problem-hint").textContent = hint;
  $("problem").hidden = false;
}
