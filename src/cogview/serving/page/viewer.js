// Full-size viewer with a picture's actions.

import * as api from './api.js';
import { announce, button, byId, element, icon } from './dom.js';
import { copy, toast } from './dialogs.js';
import { language, number, t } from './i18n.js';
import { MaskEditor } from './mask.js';
import * as settings from './settings.js';

const NUM_CAPTIONS = 2;
const FACTORS = [2, 4];

/** Remove texts that equal an earlier one case-insensitively. */
const distinct = (texts) => texts.filter((text, place) => texts.findIndex((each) => each.toLowerCase() === text.toLowerCase()) === place);

/** Return a picture's settings as JSON, for other programs. */
const settingsOf = ({ is_plain: _, ...rest } = {}) => JSON.stringify(rest, null, 2);

/** The viewer. `actions`: startJob (of a response), use (a picture's settings), write (a text). */
export class Viewer {
  #dialog = byId('viewer');
  #sources = [];
  #at = 0;
  #larger = null;
  #mask = null;

  constructor(facts, actions) {
    Object.assign(this, { facts, actions });
    this.#dialog.addEventListener('close', () => {
      if (!this.#dialog.open) this.#closed(); // the event comes a frame late, when another picture may be open
    });
    this.#dialog.addEventListener('click', (event) => {
      if (event.target === this.#dialog) this.#dialog.close();
    });
    this.#dialog.addEventListener('keydown', (event) => {
      if (this.#mask || event.target.matches('input, textarea')) return;
      if (event.key === 'ArrowLeft') this.#turn(-1);
      if (event.key === 'ArrowRight') this.#turn(1);
    });
  }

  get source() {
    return this.#sources[this.#at];
  }

  /** Open pictures at one of them. */
  open(sources, at = 0) {
    this.#closed();
    this.#sources = sources;
    this.#at = at;
    this.#show();
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#dialog.scrollTop = 0;
  }

  close() {
    this.#dialog.close();
  }

  #closed() {
    this.#forgetLarger();
    this.#mask = null;
    for (const source of this.#sources) source.close();
    this.#sources = [];
  }

  #forgetLarger() {
    if (this.#larger) URL.revokeObjectURL(this.#larger.url);
    this.#larger = null;
  }

  #turn(step) {
    if (this.#sources.length < 2) return;
    this.#forgetLarger();
    this.#at = (this.#at + step + this.#sources.length) % this.#sources.length;
    const focused = this.#dialog.ownerDocument.activeElement?.dataset.turn;
    this.#show();
    (focused && this.#dialog.querySelector(`[data-turn="${focused}"]`))?.focus();
    announce(this.source.alt);
  }

  #show() {
    const { source } = this;
    this.#mask = null;
    this.image = element('img', { src: source.url, alt: source.alt, draggable: false });
    this.frame = element('div', { class: 'frame' }, this.image);
    this.image.addEventListener('load', () => {
      this.frame.style.setProperty('--ratio', this.image.naturalWidth / this.image.naturalHeight);
      this.#offerLarger();
    });
    const turning = this.#sources.length > 1;
    const turner = (words, step, name) =>
      button(words, () => this.#turn(step), { kind: `plain turn ${name}`, icon: name, isIconOnly: true, 'data-turn': name });
    this.side = element('div', { class: 'viewer-side' });
    this.#dialog.replaceChildren(
      element(
        'div',
        { class: 'viewer-body' },
        element(
          'div',
          { class: 'viewer-picture' },
          this.frame,
          turning ? [turner(t('previous'), -1, 'left'), turner(t('next'), 1, 'right')] : null,
        ),
        this.side,
        button(t('close'), () => this.close(), { kind: 'quiet close', icon: 'close', isIconOnly: true }),
        element('div', { class: 'viewer-toasts', role: 'status' }),
      ),
    );
    this.#showSide();
  }

  #showSide() {
    const { source } = this;
    const eyebrow = source.picture || !source.facts ? [] : [element('p', { class: 'eyebrow' }, t('ours'))];
    this.text = null;
    if (!source.text) {
      this.text = element('input', { id: 'source-text', maxlength: 32_000, placeholder: t('textHint') });
    }
    this.results = element('div', { class: 'results', role: 'status' });
    this.upscalers = element('div', { class: 'row upscalers' });
    this.side.replaceChildren(
      ...eyebrow,
      element('h2', { id: 'viewer-title', lang: '' }, source.title),
      ...this.#notes().map((words) => element('p', { class: 'hint' }, words)),
      this.#facts(),
      ...(this.text ? [element('div', { class: 'field' }, element('label', { for: 'source-text' }, t('showsWhat')), this.text)] : []),
      element(
        'div',
        { class: 'actions' },
        this.upscalers,
        element(
          'div',
          { class: 'row' },
          button(t('vary'), () => this.#vary(), { icon: 'vary' }),
          button(t('redraw'), () => this.#redraw(), { icon: 'brush', 'data-action': 'redraw' }),
          this.facts.captioners.length ? button(t('caption'), (event) => this.#caption(event.currentTarget), { icon: 'words' }) : null,
        ),
        this.results,
        element('div', { class: 'row minor' }, this.#minor()),
      ),
    );
    if (this.image.complete && this.image.naturalWidth) this.#offerLarger();
  }

  #notes() {
    const { facts } = this.source;
    const notes = [];
    if (typeof facts?.drawn_text === 'string') notes.push(t('drawnText', facts.drawn_text.slice(0, 2000)));
    if (facts?.is_plain) notes.push(t('plainHint'));
    return notes;
  }

  #facts() {
    const { facts } = this.source;
    if (!facts) return element('dl', { class: 'facts', hidden: true });
    const usable = settings.usable(facts);
    const pairs = [
      [t('seed'), usable.seed === undefined ? undefined : String(usable.seed)],
      [t('sizeFact'), usable.size_pixels && t('pixels', usable.size_pixels)],
      [t('style'), usable.adapter],
      [t('guidance'), usable.guidance !== undefined && number(usable.guidance)],
      [t('temperature'), usable.temperature !== undefined && number(usable.temperature)],
      [t('topP'), usable.top_p !== undefined && number(usable.top_p)],
      [t('capLoss'), typeof facts.caption_loss === 'number' && number(facts.caption_loss, 3)],
    ].filter(([, value]) => value);
    return element('dl', { class: 'facts' }, pairs.map(([name, value]) => element('div', {}, element('dt', {}, name), element('dd', {}, value))));
  }

  #minor() {
    const { source } = this;
    const name = (source.text || 'picture').replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-|-$/g, '').slice(0, 60);
    const seed = source.facts && settings.usable(source.facts).seed;
    this.download = element(
      'a',
      { class: 'quiet', href: source.url, download: `cogview-${name}${seed === undefined || seed === null ? '' : `-seed${seed}`}.png` },
      icon('save'),
      element('span', {}, t('download')),
    );
    if (!source.facts) return [this.download];
    return [
      this.download,
      button(t('useSettings'), () => this.actions.use(source), { kind: 'quiet', icon: 'settings' }),
      button(t('copySettings'), () => copy(settingsOf(source.facts), t('copied')), { kind: 'quiet', icon: 'copy' }),
      source.isShared ? button(t('share'), () => this.#share(), { kind: 'quiet', icon: 'link' }) : null,
    ];
  }

  #share() {
    const { source } = this;
    copy(settings.linkOf(source.text, { ...settings.usable(source.facts), n: 1 }), t('linkCopied'));
  }

  /** Show the buttons of factors that enlarge this picture. */
  #offerLarger() {
    const side = this.image.naturalWidth;
    if (this.#larger || !this.facts.upscalers.length || !this.upscalers) return;
    const coded = Math.min(...this.facts.sizes);
    const isSquare = side === this.image.naturalHeight;
    const factors = FACTORS.filter((factor) => !isSquare || coded * factor > side);
    this.upscalers.replaceChildren(
      ...factors.map((factor) => {
        const words = isSquare ? t('upscale', coded * factor) : t('upscaleBy', factor);
        return button(words, (event) => this.#upscale(factor, event.currentTarget), { kind: 'primary', icon: 'larger' });
      }),
    );
  }

  async #upscale(factor, pressed, force = false) {
    const { source } = this;
    const done = showBusy(pressed, t('upscaling'));
    try {
      const response = await api.upscale({ image: await source.blob(), prompt: source.text, factor, force: force || null });
      if (source !== this.source) return;
      const blob = api.png(response.data[0].b64_json);
      this.#larger = { url: URL.createObjectURL(blob), side: response.size.split('x')[0] };
      this.#compare(true);
      announce(t('upscaled', this.#larger.side));
    } catch (error) {
      const again = error.code === 'refused' && !force;
      this.#fail(error, again ? { words: t('upscaleAnyway'), do: () => this.#upscale(factor, pressed, true) } : null);
    } finally {
      done();
    }
  }

  /** Switch between the upscaled picture and the original. */
  #compare(isLarger) {
    const { url, side } = this.#larger;
    this.image.src = isLarger ? url : this.source.url;
    this.download.href = this.image.src;
    const toggle = button(t('before'), () => this.#compare(!isLarger), { kind: 'plain toggle', icon: 'larger', 'aria-pressed': String(!isLarger) });
    this.upscalers.replaceChildren(element('span', { class: 'hint' }, t('upscaled', side)), toggle);
    toggle.focus();
  }

  async #caption(pressed) {
    const { source } = this;
    const done = showBusy(pressed, t('captioning'));
    try {
      const response = await api.captions({ image: await source.blob(), n: NUM_CAPTIONS, language: language() });
      if (source !== this.source) return;
      this.results.replaceChildren(
        element('p', { class: 'eyebrow' }, t('captions')),
        ...distinct(response.data.map(({ text }) => text)).map((text) =>
          element('p', { class: 'seen' }, element('span', { lang: '' }, text), button(t('takeCaption'), () => this.#take(text), { kind: 'text-button' })),
        ),
      );
    } catch (error) {
      this.#fail(error);
    } finally {
      done();
    }
  }

  #take(text) {
    if (this.text) this.text.value = text;
    else this.actions.write(text);
  }

  #vary() {
    const text = this.source.text || this.text.value.trim();
    if (!text) {
      toast(t('needsText'));
      this.text.focus();
      return;
    }
    this.#edit(text, {});
  }

  #redraw() {
    this.#forgetLarger();
    this.image.src = this.source.url;
    const { naturalWidth, naturalHeight } = this.image;
    const scale = Math.max(256 / Math.min(naturalWidth, naturalHeight), 1);
    const text = this.source.text || this.text.value.trim();
    this.#mask = new MaskEditor(this.frame, Math.round(naturalWidth * scale), Math.round(naturalHeight * scale), text, {
      redraw: (mask, words) => this.#edit(words, { mask }),
      back: () => {
        this.#mask.remove();
        this.#mask = null;
        this.#showSide();
        this.side.querySelector('[data-action=redraw]').focus();
      },
    });
    this.side.replaceChildren(element('h2', { id: 'viewer-title' }, t('maskTitle')), this.#mask.panel);
    this.#mask.canvas.focus();
  }

  /** Start an edit of this picture with its own settings, or the form's if it has none. */
  async #edit(text, region) {
    const { source } = this;
    try {
      const { n, seed, candidates, ...own } = source.facts ? settings.fields(settings.usable(source.facts)) : settings.readForm();
      const form = settings.readForm();
      const fields = { ...own, prompt: text, n: form.n, image: await source.blob(), ...region };
      const job = await api.edit(fields);
      this.actions.startJob(job);
      this.close();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error, action = null) {
    if (!(error instanceof api.ApiError || error instanceof settings.WrongSetting)) throw error;
    toast(error.userMessage ?? error.message, action);
  }
}

/** Show a button as busy until the returned function is called. */
function showBusy(pressed, words) {
  const label = pressed.querySelector('span');
  const old = label.textContent;
  label.textContent = words;
  pressed.setAttribute('aria-busy', 'true');
  pressed.disabled = true;
  return () => {
    label.textContent = old;
    pressed.removeAttribute('aria-busy');
    pressed.disabled = false;
  };
}
