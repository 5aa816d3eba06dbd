// Pictures for the viewer: those of jobs, and the user's files.

import * as api from './api.js';
import { t } from './i18n.js';
import { factsOf } from './png.js';
import { altOf } from './stage.js';

const MAX_BYTES = 30_000_000;
const MAX_SIDE = 1024; // larger pictures are scaled down before the upload: the model uses fewer pixels

/** The file is not a usable picture. */
export class NoPicture extends Error {}

/** Return a viewer source for a picture of a job. */
export function sourceOfPicture(job, picture) {
  return {
    title: job.text,
    text: job.text,
    facts: picture.facts,
    url: picture.url,
    alt: altOf(job, picture),
    isShared: !job.is_edit, // a link cannot contain the input picture
    picture,
    blob: () => api.file(picture.url),
    close() {},
  };
}

/** Return a viewer source for a file. */
export async function sourceOfFile(file) {
  if (file.size > MAX_BYTES) throw new NoPicture(t('tooLarge'));
  const facts = await factsOf(file);
  let blob = file;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new NoPicture(t('notPicture'));
  }
  if (Math.max(bitmap.width, bitmap.height) > MAX_SIDE || !['image/png', 'image/jpeg', 'image/webp'].includes(file.type)) {
    blob = await scaledDown(bitmap);
  }
  bitmap.close();
  const url = URL.createObjectURL(blob);
  const text = typeof facts?.text === 'string' ? facts.text.slice(0, 32_000) : '';
  return {
    title: text || t('foreign'),
    text,
    facts,
    url,
    alt: text || file.name || t('foreign'),
    isShared: Boolean(facts),
    picture: null,
    blob: async () => blob,
    close: () => URL.revokeObjectURL(url),
  };
}

function scaledDown(bitmap) {
  const scale = Math.min(MAX_SIDE / Math.max(bitmap.width, bitmap.height), 1);
  const canvas = document.createElement('canvas');
  canvas.width = Math.max(Math.round(bitmap.width * scale), 1);
  canvas.height = Math.max(Math.round(bitmap.height * scale), 1);
  const context = canvas.getContext('2d');
  context.imageSmoothingQuality = 'high';
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
}

/** Call `take` with each picture that is dropped, pasted or chosen. */
export function takeFiles(chooser, field, veil, take) {
  const first = (files) => [...(files ?? [])].find((file) => file.type.startsWith('image/')) ?? files?.[0];
  chooser.addEventListener('click', () => field.click());
  field.addEventListener('change', () => {
    const file = first(field.files);
    if (file) take(file);
    field.value = '';
  });
  document.addEventListener('paste', (event) => {
    const file = first(event.clipboardData?.files);
    if (!file) return;
    event.preventDefault();
    take(file);
  });
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes('Files');
  let depth = 0;
  document.addEventListener('dragenter', (event) => {
    if (!hasFiles(event)) return;
    depth += 1;
    veil.hidden = false;
  });
  document.addEventListener('dragleave', (event) => {
    if (!hasFiles(event)) return;
    depth = Math.max(depth - 1, 0);
    veil.hidden = depth === 0;
  });
  document.addEventListener('dragover', (event) => {
    if (hasFiles(event)) event.preventDefault();
  });
  document.addEventListener('drop', (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = 0;
    veil.hidden = true;
    const file = first(event.dataTransfer.files);
    if (file) take(file);
  });
}
