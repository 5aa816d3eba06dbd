// Editor for inpainting masks.

import { button, element } from './dom.js';
import { t } from './i18n.js';

const COLOUR = '#e0492f';
const [SMALLEST, USUAL, LARGEST] = [3, 14, 40]; // brush sizes, in per cent of the width
const STEPS = 32; // of the keyboard's brush, from edge to edge
const HALVES = { upper: [0, 0, 1, 0.5], lower: [0, 0.5, 1, 0.5], left: [0, 0, 0.5, 1], right: [0.5, 0, 0.5, 1] };
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Canvas over a picture to paint a mask. `panel` holds its controls. */
export class MaskEditor {
  #strokes = [];
  #isErasing = false;
  #stroke = null;
  #at = [0.5, 0.5];

  /**
   * @param {HTMLElement} frame around the picture, with its shape
   * @param {number} width of the picture in pixels, like `height`
   * @param {string} text initial prompt
   * @param {{redraw: (mask: Blob, text: string) => void, back: () => void}} actions
   */
  constructor(frame, width, height, text, actions) {
    this.actions = actions;
    this.canvas = element('canvas', { class: 'mask', width, height, tabindex: 0, role: 'img', 'aria-label': t('maskCanvas') });
    this.ring = element('div', { class: 'ring', hidden: true });
    this.brush = this.canvas.getContext('2d', { willReadFrequently: true });
    frame.append(this.canvas, this.ring);
    this.panel = this.#panel(text);
    this.#listen();
    this.#showTools();
  }

  remove() {
    this.canvas.remove();
    this.ring.remove();
    this.panel.remove();
  }

  get isEmpty() {
    const { data } = this.brush.getImageData(0, 0, this.canvas.width, this.canvas.height);
    for (let at = 3; at < data.length; at += 4) if (data[at] >= 128) return false;
    return true;
  }

  /** Return the mask as a file, white where to inpaint. */
  file() {
    const { width, height } = this.canvas;
    const [white, whole] = [element('canvas', { width, height }), element('canvas', { width, height })];
    const over = white.getContext('2d');
    over.drawImage(this.canvas, 0, 0);
    over.globalCompositeOperation = 'source-in';
    over.fillStyle = '#fff';
    over.fillRect(0, 0, width, height);
    const under = whole.getContext('2d');
    under.fillStyle = '#000';
    under.fillRect(0, 0, width, height);
    under.drawImage(white, 0, 0);
    return new Promise((resolve) => whole.toBlob(resolve, 'image/png'));
  }

  #panel(text) {
    const choose = (isErasing) => () => {
      this.#isErasing = isErasing;
      this.#showTools();
    };
    this.brushButton = button(t('brush'), choose(false), { icon: 'brush', kind: 'plain toggle' });
    this.eraserButton = button(t('eraser'), choose(true), { icon: 'eraser', kind: 'plain toggle' });
    this.undoButton = button(t('undo'), () => this.#undo(), { icon: 'back' });
    this.clearButton = button(t('clear'), () => this.#add({ isClearing: true }), { icon: 'close' });
    this.size = element('input', { id: 'brush-size', type: 'range', min: SMALLEST, max: LARGEST, value: USUAL });
    this.size.addEventListener('input', () => this.#showRing());
    this.text = element('textarea', { id: 'mask-text', rows: 2, maxlength: 32_000 });
    this.text.value = text;
    this.wrong = element('p', { class: 'wrong', role: 'alert', hidden: true });
    const halves = Object.keys(HALVES).map((half) => button(t(half), () => this.#add({ half }), { kind: 'plain small' }));
    return element(
      'div',
      { class: 'mask-panel' },
      element('p', { class: 'hint' }, t('maskHint')),
      element('div', { class: 'row' }, this.brushButton, this.eraserButton),
      element('div', { class: 'row' }, this.undoButton, this.clearButton),
      element('div', { class: 'field' }, element('label', { for: 'brush-size' }, t('brushSize')), this.size),
      element('div', { class: 'row halves', role: 'group', 'aria-label': t('halves') }, element('span', { class: 'hint' }, t('halves')), halves),
      element('div', { class: 'field' }, element('label', { for: 'mask-text' }, t('showsWhat')), this.text),
      this.wrong,
      element(
        'div',
        { class: 'row' },
        button(t('back'), () => this.actions.back()),
        button(t('redrawNow'), () => this.#redraw(), { kind: 'primary', icon: 'brush' }),
      ),
    );
  }

  async #redraw() {
    const text = this.text.value.trim();
    const problem = this.isEmpty ? t('maskEmpty') : text ? '' : t('needsText');
    this.wrong.hidden = !problem;
    this.wrong.textContent = problem;
    if (!problem) this.actions.redraw(await this.file(), text);
  }

  #listen() {
    const { canvas } = this;
    canvas.addEventListener('pointerdown', (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.#place(event);
      this.#stroke = { isErasing: this.#isErasing, size: Number(this.size.value), points: [this.#at] };
      this.#redrawAll();
    });
    canvas.addEventListener('pointermove', (event) => {
      const events = this.#stroke ? (event.getCoalescedEvents?.() ?? []) : [];
      for (const each of events.length ? events : [event]) {
        this.#place(each);
        this.#stroke?.points.push(this.#at);
      }
      if (this.#stroke) this.#redrawAll();
    });
    const end = () => {
      if (!this.#stroke) return;
      this.#strokes.push(this.#stroke);
      this.#stroke = null;
      this.#showTools();
    };
    canvas.addEventListener('pointerup', end);
    canvas.addEventListener('pointercancel', end);
    canvas.addEventListener('pointerleave', () => {
      this.ring.hidden = true;
    });
    canvas.addEventListener('keydown', (event) => {
      const move = MOVES[event.key];
      if (move) this.#at = this.#at.map((value, axis) => Math.min(Math.max(value + move[axis] / STEPS, 0), 1));
      else if (event.key === ' ') this.#add({ isErasing: this.#isErasing, size: Number(this.size.value), points: [this.#at] });
      else if (event.key.toLowerCase() === 'z' && (event.ctrlKey || event.metaKey)) this.#undo();
      else return;
      event.preventDefault();
      event.stopPropagation();
      this.#showRing();
    });
    canvas.addEventListener('focus', () => {
      if (canvas.matches(':focus-visible')) this.#showRing();
    });
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    this.#at = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    this.#showRing();
  }

  #showRing() {
    const share = Number(this.size.value);
    Object.assign(this.ring.style, {
      left: `${this.#at[0] * 100}%`,
      top: `${this.#at[1] * 100}%`,
      width: `${share}%`,
    });
    this.ring.hidden = false;
  }

  #add(stroke) {
    if (stroke.isClearing && !this.#strokes.length) return;
    this.#strokes.push(stroke);
    this.#draw(stroke);
    this.#showTools();
  }

  #undo() {
    this.#strokes.pop();
    this.#redrawAll();
    this.#showTools();
  }

  /** Redraw all strokes: drawing a growing stroke over itself would roughen its edges. */
  #redrawAll() {
    this.brush.clearRect(0, 0, this.canvas.width, this.canvas.height);
    for (const stroke of this.#strokes) this.#draw(stroke);
    if (this.#stroke) this.#draw(this.#stroke);
  }

  #draw(stroke) {
    const { brush } = this;
    const { width, height } = this.canvas;
    if (stroke.isClearing) {
      brush.clearRect(0, 0, width, height);
      return;
    }
    if (stroke.half) {
      const [x, y, across, down] = HALVES[stroke.half];
      brush.fillStyle = COLOUR;
      brush.fillRect(x * width, y * height, across * width, down * height);
      return;
    }
    brush.save();
    brush.globalCompositeOperation = stroke.isErasing ? 'destination-out' : 'source-over';
    Object.assign(brush, { strokeStyle: COLOUR, lineCap: 'round', lineJoin: 'round', lineWidth: (stroke.size / 100) * width });
    brush.beginPath();
    for (const [x, y] of stroke.points) brush.lineTo(x * width, y * height);
    const [x, y] = stroke.points[0];
    if (stroke.points.length === 1) brush.lineTo(x * width + 0.01, y * height); // a dot
    brush.stroke();
    brush.restore();
  }

  /** Update the buttons of tools and undo. */
  #showTools() {
    this.brushButton.setAttribute('aria-pressed', String(!this.#isErasing));
    this.eraserButton.setAttribute('aria-pressed', String(this.#isErasing));
    this.undoButton.disabled = this.clearButton.disabled = !this.#strokes.length;
  }
}
