// What the server offers, before any image: its models, and their tasks.

import { $, h } from "./dom.js";

const KINDS = {
  labels: (task) => `${task.labels.length} classes`,
  depth: (task) => (task.metric ? "metres" : "near and far"),
  normals: () => "directions",
  probability: () => "probability",
};

/** Fill the header, the list of tasks and the choice of models with what GET /models says. */
export function showModels({ models, tasks }) {
  $("models").replaceChildren(
    ...models.map((model) => {
      const size = `${model.input.width} × ${model.input.height}`;
      const facts = [`${model.name} ${model.version}`, size, model.device, ...millions(model.parameters)];
      return h("li", { title: model.description ?? "" }, facts.join(" · "));
    }),
  );
  $("tasks").replaceChildren(
    ...Object.entries(tasks).map(([name, owner]) => {
      const task = models.find((model) => model.name === owner).tasks.find((each) => each.name === name);
      return h("li", {}, h("strong", {}, task.title ?? name), ` ${KINDS[task.kind]?.(task) ?? task.kind}`);
    }),
  );
  $("model").replaceChildren(
    h("option", { value: "" }, "all together"),
    ...models.map((model) => h("option", { value: model.name }, model.name)),
  );
  $("model").closest("label").hidden = models.length < 2;
}

function millions(parameters) {
  return parameters === undefined ? [] : [`${(parameters / 1e6).toFixed(1)} M parameters`];
}
