// DOM helpers. Text becomes text nodes, never markup.

export const byId = (id) => document.getElementById(id);

const SVG = 'http://www.w3.org/2000/svg';

/** Create an element. `on` holds listeners, `data` data attributes; other options are attributes. */
export function element(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'on') {
      for (const [type, listener] of Object.entries(value)) node.addEventListener(type, listener);
    } else if (name === 'data') {
      Object.assign(node.dataset, value);
    } else {
      node.setAttribute(name, value === true ? '' : String(value));
    }
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Create an icon from the page's SVG symbols. */
export function icon(name) {
  const node = document.createElementNS(SVG, 'svg');
  node.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS(SVG, 'use');
  use.setAttribute('href', `#i-${name}`);
  node.append(use);
  return node;
}

/** Create a button with text and an optional icon, or an icon with the text as its label. */
export function button(words, listener, { kind = 'plain', icon: name, isIconOnly = false, ...options } = {}) {
  const label = isIconOnly ? { 'aria-label': words, title: words } : {};
  const classes = isIconOnly ? `${kind} icon-only` : kind;
  return element(
    'button',
    { type: 'button', class: classes, on: { click: listener }, ...label, ...options },
    name ? icon(name) : null,
    isIconOnly ? null : element('span', {}, words),
  );
}

export const isStill = () => matchMedia('(prefers-reduced-motion: reduce)').matches;

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Announce a message to screen readers. */
export function announce(words) {
  byId('live').textContent = words;
}

/** Read (`value` undefined), delete (null) or write an entry of the browser's storage, if it is allowed. */
export function keep(storage, name, value) {
  try {
    if (value === undefined) return window[storage].getItem(name);
    if (value === null) window[storage].removeItem(name);
    else window[storage].setItem(name, value);
  } catch {
    // Storage is forbidden or full.
  }
  return null;
}

/** Run a layout change and animate the children of `parent` to their new positions. */
export function glide(parent, change) {
  if (isStill() || !parent.animate) {
    change();
    return;
  }
  const before = new Map([...parent.children].map((child) => [child, child.getBoundingClientRect()]));
  change();
  for (const child of parent.children) {
    const old = before.get(child);
    if (!old?.width) continue;
    const now = child.getBoundingClientRect();
    const [x, y] = [old.left - now.left, old.top - now.top];
    const scale = old.width / (now.width || 1);
    if (Math.abs(x) + Math.abs(y) < 1 && Math.abs(scale - 1) < 0.01) continue;
    child.animate(
      [{ transformOrigin: '0 0', transform: `translate(${x}px, ${y}px) scale(${scale})` }, { transformOrigin: '0 0', transform: 'none' }],
      { duration: 650, easing: 'cubic-bezier(.22,.8,.24,1)' },
    );
  }
}
