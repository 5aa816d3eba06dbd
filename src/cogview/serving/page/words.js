// Dialog with the model's vocabulary; a click inserts a word into the text.

import * as api from './api.js';
import { button, byId, element } from './dom.js';
import { language, t } from './i18n.js';

/** The vocabulary dialog. Inserts words into `text`; `tell` is called with server errors. */
export class Words {
  #dialog = byId('known');
  #known = null;
  #hasWritten = false;

  constructor(text, tell) {
    Object.assign(this, { text, tell });
    this.#dialog.addEventListener('click', (event) => {
      if (event.target === this.#dialog) this.#dialog.close();
    });
    this.#dialog.addEventListener('close', () => {
      if (this.#hasWritten) this.text.focus(); // to continue writing
    });
  }

  async open() {
    try {
      this.#known ??= await api.words();
    } catch (error) {
      this.tell(error);
      return;
    }
    this.#hasWritten = false;
    this.#show();
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#dialog.scrollTop = 0;
  }

  #show() {
    const known = this.#known;
    this.written = element('p', { class: 'known-text', role: 'status', lang: '' }, this.text.value);
    const groups = known.things.length
      ? [
          ...colourGroups(known.colours),
          ['knownSizes', known.sizes],
          ['knownNumbers', known.numbers],
          ['knownPlaces', known.places],
          ['knownStyles', known.styles],
        ]
      : [['knownWords', known.words.map(plain)]];
    const adapters = Object.entries(known.adapters).map(([name, words]) => [t('knownByStyle', name.replace(/^style-/, '')), words.map(plain)]);
    this.#dialog.replaceChildren(
      element(
        'div',
        { class: 'known-body' },
        element(
          'div',
          { class: 'known-head' },
          element('h2', { id: 'known-title' }, t('known')),
          this.written,
          button(t('close'), () => this.#dialog.close(), { kind: 'quiet close', icon: 'close', isIconOnly: true }),
        ),
        element('p', { class: 'hint' }, t(known.things.length ? 'knownHint' : 'knownWordsHint')),
        known.things.length ? this.#things(known.things) : null,
        [...groups.map(([title, names]) => [t(title), names]), ...adapters].map(([title, names]) => this.#group(title, names)),
      ),
    );
  }

  /** Return the group of things with a search field. */
  #things(things) {
    const group = this.#group(t('knownThings', things.length), things);
    const chips = [...group.querySelectorAll('.chip')];
    const none = element('p', { class: 'hint', role: 'status' });
    const find = ({ target }) => {
      const wanted = target.value.trim().toLowerCase();
      const isFound = ({ english, chinese }) => [...english, ...chinese].some((name) => name.toLowerCase().includes(wanted));
      chips.forEach((chip, place) => {
        chip.hidden = !isFound(things[place]);
      });
      none.textContent = things.some(isFound) ? '' : t('knownNothing');
    };
    const field = element('input', { id: 'known-search', type: 'search', maxlength: 100, placeholder: t('knownSearch'), on: { input: find } });
    group.classList.add('known-many');
    group.querySelector('h3').after(
      element('div', { class: 'field' }, element('label', { class: 'visually-hidden', for: 'known-search' }, t('knownSearch')), field),
    );
    group.append(none);
    return group;
  }

  #group(title, names) {
    if (!names.length) return null;
    return element(
      'section',
      { class: 'known-group' },
      element('h3', {}, title),
      element('div', { class: 'known-names' }, names.map((each) => this.#chip(each))),
    );
  }

  #chip(known) {
    const [name] = language() === 'zh' ? known.chinese : known.english;
    return element('button', { type: 'button', class: 'chip', 'aria-label': t('completion', name), on: { click: () => this.#write(name) } }, name);
  }

  #write(word) {
    const { value, selectionStart: from, selectionEnd: to } = this.text;
    const before = needsSpace(value.slice(0, from), word) ? ' ' : '';
    const after = needsSpace(word, value.slice(to)) ? ' ' : '';
    this.text.setRangeText(before + word + after, from, to, 'end');
    this.text.dispatchEvent(new Event('input'));
    this.#hasWritten = true;
    this.written.textContent = this.text.value;
  }
}

/** Group colours by what can have them. */
function colourGroups(colours) {
  const isOf = (...of) => colours.filter((colour) => colour.of.join() === of.join());
  return [
    ['knownColours', isOf('grounds', 'things')],
    ['knownGroundColours', isOf('grounds')],
    ['knownThingColours', isOf('things')],
  ];
}

const plain = (word) => ({ english: [word], chinese: [word] });

/** Return whether two parts of a text need a space between them; Chinese characters do not. */
function needsSpace(before, after) {
  const isWord = /^[\p{L}\p{N}]/u;
  const isHan = /^\p{Script=Han}/u;
  const last = [...before].at(-1) ?? '';
  return (isWord.test(last) || /[,.;:!?]/.test(last)) && isWord.test(after) && !isHan.test(last) && !isHan.test(after);
}
