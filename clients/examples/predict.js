// The maps of an image from the gateway, in a browser or in Node 18 and newer.

// Resolves to the gateway's JSON; each of its maps has `png`, base64.
async function predict(url, image, tasks) {
  const form = new FormData();
  form.append("image", image);
  const query = tasks ? "?" + new URLSearchParams({ tasks: tasks.join(",") }) : "";
  const response = await fetch(url + "/predict" + query, { method: "POST", body: form });
  const answer = await response.json();
  if (!response.ok) {
    throw new Error(`${answer.error.message}: ${answer.error.hint}`);
  }
  return answer;
}
