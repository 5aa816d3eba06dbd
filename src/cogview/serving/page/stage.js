// The stage: the selected job with its pictures.

import { announce, byId, button, element, glide, isStill } from './dom.js';
import { ago, onLanguage, t } from './i18n.js';

const MAX_WORDS = 12;

/** Return the alternative text of a picture. */
export function altOf(job, picture) {
  return t('picture', job.text, picture.place + 1, Math.max(job.n, job.pictures.length));
}

/** Describe a job's progress. */
export function statusOf(job) {
  if (!job.isConnected) return t('reconnecting');
  if (job.state === 'done') return t('done', job.pictures.length, job.isRanked);
  if (job.state === 'cancelled') return t('cancelled', job.pictures.length);
  if (job.state === 'refused' || job.state === 'failed') return t(job.state);
  if (job.queued) {
    const { position, seconds } = job.queued;
    const when = seconds === null ? '' : ` · ${t('about', Math.max(Math.ceil(seconds), 1))}`;
    return (position ? t('waiting', position) : t('waitingNext')) + when;
  }
  if (job.state === 'waiting') return t('waitingFirst');
  if (job.isRanked && (job.pictures.length || job.share > 0.995)) return t('ranking');
  return t('drawing', Math.floor(job.share * 100));
}

/** Return the notes on a job's text and pictures. */
export function notesOf(job) {
  const notes = [];
  const unknown = job.accepted.unknown_words ?? [];
  if (unknown.length) {
    const more = unknown.length > MAX_WORDS ? ' …' : '';
    notes.push(t('unknownWords', unknown.slice(0, MAX_WORDS).join(', ') + more));
  }
  if (job.accepted.is_cut) notes.push(t('isCut'));
  if (job.pictures.length && job.pictures.every((picture) => picture.facts.is_plain)) notes.push(t('plainHint'));
  if (job.message) notes.push(job.message);
  return notes;
}

/** Return the drawn part of a picture as a CSS shape: full rows of codes and a part of the next. */
function drawnPart(share, [rows, columns]) {
  const codes = Math.round(share * rows * columns);
  const [row, column] = [Math.floor(codes / columns), codes % columns];
  const [top, bottom, right] = [row / rows, Math.min((row + 1) / rows, 1), column / columns].map((value) => `${value * 100}%`);
  return `polygon(0 0, 100% 0, 100% ${top}, ${right} ${top}, ${right} ${bottom}, 0 ${bottom})`;
}

/** The stage. `actions`: open (a picture), again and remove (a job), words (open the vocabulary). */
export class Stage {
  grid = [16, 16]; // rows and columns of codes
  #section = byId('stage');
  #job = null;
  #tiles = new Map();
  #announced = '';
  #listener = (event) => this.#changed(event.detail);

  constructor(actions) {
    this.actions = actions;
    onLanguage(() => this.#job && this.show(this.#job));
  }

  get job() {
    return this.#job;
  }

  /** Show a job, or nothing. */
  show(job) {
    this.#job?.removeEventListener('change', this.#listener);
    this.#job = job;
    this.#tiles.clear();
    this.#announced = '';
    this.#section.hidden = job === null;
    if (job === null) {
      this.#section.replaceChildren();
      return;
    }
    job.addEventListener('change', this.#listener);
    this.#section.dataset.job = job.id;
    this.title = element('h2', { id: 'stage-title', lang: '', tabindex: '-1' }, job.text);
    this.status = element('p', { class: 'status' });
    this.bar = element('div', { class: 'bar' }, element('div'));
    this.notes = element('div', { class: 'notes' });
    this.tiles = element('div', { class: 'tiles', role: 'list' });
    this.tools = element('div', { class: 'stage-tools' });
    this.#section.replaceChildren(
      element('div', { class: 'stage-head' }, element('div', {}, this.title, this.status), this.tools),
      this.bar,
      this.notes,
      this.tiles,
    );
    this.#arrange();
    this.#describe();
  }

  #changed(what) {
    const job = this.#job;
    if (job.isGone) return;
    if (what === 'preview') for (const seed of job.previews.keys()) this.#fill(seed);
    else if (what === 'picture' || job.isOver) glide(this.tiles, () => this.#arrange());
    this.#describe();
    this.#announce(what);
  }

  #describe() {
    const job = this.#job;
    const edited = job.is_edit ? ` · ${t('edited')}` : '';
    this.status.textContent = statusOf(job) + edited + (job.isOver ? ` · ${ago(job.created)}` : '');
    this.bar.hidden = job.isOver;
    this.bar.firstChild.style.inlineSize = `${job.share * 100}%`;
    this.#note();
    const tools = job.isOver ? 'over' : 'under way';
    if (this.tools.dataset.shown !== tools) {
      this.tools.dataset.shown = tools;
      this.tools.replaceChildren(
        ...(job.isOver && !job.is_edit ? [button(t('again'), () => this.actions.again(job), { kind: 'quiet', icon: 'again' })] : []),
        button(t('remove'), () => this.actions.remove(job), { kind: 'quiet', icon: 'trash' }),
      );
    }
  }

  #note() {
    const notes = notesOf(this.#job);
    if (this.notes.dataset.told === notes.join()) return; // a button in them may have the focus
    this.notes.dataset.told = notes.join();
    this.notes.replaceChildren(...notes.map((words) => element('p', {}, words)));
    if (!this.#job.accepted.unknown_words?.length) return;
    this.notes.firstChild.append(' ', button(t('known'), this.actions.words, { kind: 'text-button', 'aria-haspopup': 'dialog' }));
  }

  #announce(what) {
    const job = this.#job;
    let words = '';
    if (job.isOver) words = job.state === 'done' ? t('doneAnnounced', job.pictures.length) : `${statusOf(job)}. ${job.message}`;
    else if (what === 'queued') words = statusOf(job).split(' · ')[0];
    else if (what === 'preview') words = t('drawingNow');
    else if (what === 'connection' && !job.isConnected) words = statusOf(job);
    if (!words || words === this.#announced) return;
    this.#announced = words;
    announce(words);
  }

  /** Create missing tiles, remove those of dropped candidates, and order them. */
  #arrange() {
    const job = this.#job;
    const { seeds } = job;
    for (const [seed, tile] of this.#tiles) {
      if (seeds.includes(seed)) continue;
      tile.remove();
      this.#tiles.delete(seed);
    }
    for (const seed of seeds) {
      if (!this.#tiles.has(seed)) this.#tiles.set(seed, this.#tile(seed));
      this.#fill(seed);
      const tile = this.#tiles.get(seed);
      const place = seeds.indexOf(seed);
      if (this.tiles.children[place] !== tile) this.tiles.insertBefore(tile, this.tiles.children[place] ?? null);
    }
    this.tiles.dataset.count = seeds.length <= 4 ? seeds.length : seeds.length <= 12 ? 'many' : 'very-many';
    this.tiles.hidden = !seeds.length;
  }

  #tile(seed) {
    const image = element('img', { alt: '', draggable: false, decoding: 'async' });
    const opener = element(
      'button',
      { type: 'button', class: 'tile-button', disabled: true, on: { click: () => this.actions.open(this.#job, seed) } },
      image,
    );
    const tile = element('div', { class: 'tile growing', role: 'listitem', data: { seed } }, opener);
    return tile;
  }

  #fill(seed) {
    const job = this.#job;
    const tile = this.#tiles.get(seed);
    if (!tile) return;
    const opener = tile.firstChild;
    const image = opener.firstChild;
    const picture = job.picture(seed);
    const preview = job.previews.get(seed);
    if (picture) {
      if (tile.classList.contains('growing')) {
        tile.classList.remove('growing');
        opener.disabled = false;
        image.src = picture.url;
        image.style.clipPath = '';
        if (preview && !isStill()) image.animate?.([{ opacity: 0.6 }, { opacity: 1 }], { duration: 400 });
      }
      image.alt = altOf(job, picture);
      opener.setAttribute('aria-label', t('open', altOf(job, picture)));
      this.#badge(tile, picture);
    } else if (preview) {
      image.src = preview.image;
      image.style.clipPath = job.is_edit ? '' : drawnPart(preview.share, this.grid);
      image.alt = t('growing', job.text, seed - job.seed + 1);
    } else {
      opener.setAttribute('aria-label', t('growing', job.text, seed - job.seed + 1));
    }
  }

  #badge(tile, picture) {
    const job = this.#job;
    tile.querySelector('.badges')?.remove();
    const badges = element('div', { class: 'badges' });
    if (job.isRanked) badges.append(element('span', { class: 'badge', title: t('rank', picture.place + 1) }, String(picture.place + 1)));
    if (picture.facts.is_plain) badges.append(element('span', { class: 'badge', title: t('plainHint') }, t('plain')));
    if (badges.children.length) tile.append(badges);
  }
}
