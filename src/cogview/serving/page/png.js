// Metadata of PNG files: CogView stores text, seed and settings as JSON.

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const KEYWORD = 'cogview';
const MAX_CHUNKS = 10_000;
const MAX_FACTS_BYTES = 1_000_000;

/** Return the metadata of a file, or null. Reads no compressed data. */
export async function factsOf(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (SIGNATURE.some((value, index) => bytes[index] !== value)) return null;
  const view = new DataView(bytes.buffer);
  let at = 8;
  for (let count = 0; count < MAX_CHUNKS && at + 12 <= bytes.length; count += 1) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const end = at + 8 + length;
    if (end + 4 > bytes.length || kind === 'IEND') return null;
    if (kind === 'iTXt' && length <= MAX_FACTS_BYTES) {
      const facts = factsIn(bytes.subarray(at + 8, end));
      if (facts) return facts;
    }
    at = end + 4;
  }
  return null;
}

/** Parse an iTXt chunk: keyword, 0, compressed?, method, language, 0, translated keyword, 0, text. */
function factsIn(data) {
  const ends = [];
  let from = 0;
  for (let part = 0; part < 3; part += 1) {
    const end = data.indexOf(0, from);
    if (end < 0) return null;
    ends.push(end);
    from = part === 0 ? end + 3 : end + 1;
  }
  const [end] = ends;
  if (String.fromCharCode(...data.subarray(0, Math.min(end, 80))) !== KEYWORD || data[end + 1] !== 0) return null;
  try {
    const facts = JSON.parse(new TextDecoder().decode(data.subarray(from)));
    return facts !== null && typeof facts === 'object' && !Array.isArray(facts) ? facts : null;
  } catch {
    return null;
  }
}
