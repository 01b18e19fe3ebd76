// Distances from the camera that the person knows at points of an image, and the form that asks for one.

import { $ } from "./dom.js";

const MOST = 65; // metres: no map says more

/** Fires "change" when there is a distance more, or none any more. */
export class Known extends EventTarget {
  #given = new WeakMap(); // of the source of an image: what is known of it, as the parameter has it
  #models = null; // as GET /models has them
  #mark = null; // the point that the form is about
  #answer = null;

  constructor(element, measure) {
    super();
    this.form = element.querySelector("[data-known]");
    this.metres = this.form.querySelector("input");
    this.metres.max = String(MOST);
    this.told = this.form.querySelector("[data-told]");
    this.state = element.querySelector("[data-corrected]");
    this.measure = measure;
    measure.addEventListener("change", () => this.#ask());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#take();
    });
    this.state.querySelector("button").addEventListener("click", () => {
      this.#given.delete(this.#answer.input.source);
      this.dispatchEvent(new Event("change"));
    });
  }

  /** Take what GET /models says. */
  offer({ models }) {
    this.#models = models;
  }

  /** Parameters of a request for depth of the image of `source`. */
  query(source) {
    const given = this.#given.get(source);
    return given && this.#heeded ? { distances: given.join(",") } : {};
  }

  /** Say what is known of the image of `answer`; a frame of a `live` camera is gone before anybody has measured. */
  show(answer, live) {
    this.#answer = answer;
    this.live = live;
    const about = answer.maps.find((map) => map.info.measured)?.info.measured;
    this.state.hidden = about === undefined;
    if (about) {
      const contrary = about.disagreeing ? `; ${about.disagreeing} of them contradicted by the others` : "";
      const count = about.points === 1 ? "the distance" : `the ${about.points} distances`;
      this.state.querySelector("span").textContent = `Corrected by ${count} that you gave${contrary}.`;
    }
    this.#ask();
  }

  /** Whether the models that are asked have depth in metres. */
  get #heeded() {
    const chosen = $("model").value;
    return this.#models === null || this.#models.some(({ name, tasks }) =>
      (!chosen || name === chosen) && tasks.some((task) => task.kind === "depth" && task.metric));
  }

  #ask() {
    const mark = this.live ? null : this.measure.only;
    this.form.hidden = mark === null;
    if (mark === null) return;
    const away = mark.away.toFixed(2);
    this.told.textContent = `This point is ${away} m from the camera. If you know better:`;
    if (this.#mark?.at !== mark.at) this.metres.value = "";
    this.metres.placeholder = away;
    this.#mark = mark;
  }

  #take() {
    const { source } = this.#answer.input;
    const { width, height } = this.#answer.image;
    const { x, y, along } = this.#mark;
    const metres = along * Number(this.metres.value); // along the axis, as depth is
    const given = [x * width - 0.5, y * height - 0.5, metres].map((value) => String(Number(value.toFixed(3))));
    this.#given.set(source, [...(this.#given.get(source) ?? []), given.join(",")]);
    this.measure.clear();
    this.dispatchEvent(new Event("change"));
  }
}
