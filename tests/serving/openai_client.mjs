// Asks a server through OpenAI's JavaScript client, and prints what came as JSON.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [, , url, folder] = process.argv;
const at = createRequire(folder + "/")
const { default: OpenAI, toFile } = await import(pathToFileURL(at.resolve("openai")));
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const asked = { prompt: "two umbrellas on a yellow ground", size: "128x128" };

async function refused(ask) {
  try {
    await ask();
  } catch (error) {
    const { status, type, param, code, requestID } = error;
    return { name: error.constructor.name, status, type, param, code, has_id: Boolean(requestID) };
  }
}

const drawn = await client.images.generate({ ...asked, n: 2, seed: 7, output_format: "webp" });
const byUrl = await client.images.generate({ ...asked, response_format: "url" });
const fetched = await fetch(byUrl.data[0].url);
const events = [];
for await (const event of await client.images.generate({ ...asked, seed: 7, stream: true, partial_images: 1 })) {
  events.push({ ...event, b64_json: event.b64_json.length });
}
const image = await toFile(Buffer.from(drawn.data[0].b64_json, "base64"), "a.webp", { type: "image/webp" });
const edited = await client.images.edit({ image, prompt: "two umbrellas", n: 2 });
const timedOut = await refused(() => client.images.generate({ ...asked, n: 10 }, { timeout: 20 }));
const left = new AbortController();
setTimeout(() => left.abort(), 20);
const aborted = await refused(() => client.images.generate({ ...asked, n: 10 }, { signal: left.signal }));

console.log(JSON.stringify({
  drawn,
  fetched: { status: fetched.status, type: fetched.headers.get("content-type") },
  events,
  edited,
  timedOut,
  aborted,
  models: (await client.models.list()).data,
  missing: await refused(() => client.models.retrieve("gpt-image-1")),
  transparent: await refused(() => client.images.generate({ ...asked, background: "transparent" })),
  size: await refused(() => client.images.generate({ ...asked, size: "77x77" })),
}));
