"use strict";

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const RATER = /^[A-Za-z0-9_-]{1,64}$/;
const find = (id) => document.getElementById(id);

let asked = null; // what the server asks this rater
let rater = "";
let index = 0; // of the question that is shown
let milliseconds = 0; // that it has been looked at
let lookedSince = null;
let isSending = false;

// What outlives the page. A browser may refuse to keep anything: then only the server's answers do.

function recall(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function keep(name, value) {
  try {
    if (value === null) localStorage.removeItem(name);
    else localStorage.setItem(name, value);
  } catch {
    // Nothing more can be done.
  }
}

function newRater() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const raterName = () => "cogview rater";
const draftName = () => `cogview draft ${asked.identity} ${rater} ${asked.questions[index].number}`;

function recallDraft() {
  try {
    const draft = JSON.parse(recall(draftName()));
    return draft && typeof draft.scores === "object" && draft.scores ? draft : null;
  } catch {
    return null;
  }
}

// The server.

async function load() {
  const response = await fetch(`api/questions?rater=${encodeURIComponent(rater)}`, { cache: "no-store" });
  const told = await response.json();
  if (!response.ok) throw new Error(told.error);
  return told;
}

async function send(answer) {
  const response = await fetch("api/answers", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(answer),
  });
  if (!response.ok) throw new Error((await response.json()).error);
}

// What is shown.

function show(id) {
  for (const name of ["welcome", "question", "done"]) find(name).hidden = name !== id;
  complain(null);
}

function complain(message) {
  const place = find("question").hidden ? "alert" : "question-alert";
  for (const name of ["alert", "question-alert"]) {
    find(name).hidden = message === null || name !== place;
    find(name).textContent = name === place ? (message ?? "") : "";
  }
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function choices(name, values, label) {
  return values.map((value) => {
    const choice = element("label", "choice");
    const input = element("input");
    input.type = "radio";
    input.name = name;
    input.value = value;
    input.setAttribute("aria-label", label(value));
    choice.append(input, element("span", "", value));
    choice.lastChild.setAttribute("aria-hidden", "true");
    return choice;
  });
}

function card(picture, letter) {
  const made = element("section", "card");
  made.dataset.picture = picture;
  made.setAttribute("aria-label", `Picture ${letter}`);
  const heading = element("h2", "", `Picture ${letter}`);
  heading.append(element("span", "mark", "✓ best"));
  const image = element("img");
  image.alt = `Picture ${letter}`;
  image.addEventListener("error", () => complain(`Picture ${letter} cannot be shown: reload this page.`));
  image.src = `pictures/${picture}.png`;
  made.append(heading, image);
  for (const [scale, largest] of Object.entries(asked.scales)) {
    const group = element("div", "group");
    group.setAttribute("role", "radiogroup");
    group.setAttribute("aria-label", `Picture ${letter}, ${scale}, 1 to ${largest}`);
    const name = element("span", "name", scale[0].toUpperCase() + scale.slice(1));
    name.setAttribute("aria-hidden", "true");
    const all = element("span", "choices");
    const values = Array.from({ length: largest }, (_, before) => String(before + 1));
    all.append(...choices(`${letter} ${scale}`, values, (value) => `${value} of ${largest}`));
    group.dataset.letter = letter;
    group.dataset.scale = scale;
    group.append(name, all);
    made.append(group);
  }
  return made;
}

function showQuestion(number) {
  index = number;
  const question = asked.questions[index];
  const letters = Array.from(question.pictures, (_, place) => LETTERS[place]);
  find("caption").textContent = question.caption;
  find("cards").replaceChildren(...question.pictures.map((picture, place) => card(picture, letters[place])));
  find("best").querySelector(".choices").replaceChildren(
    ...choices("best", letters, (letter) => `Picture ${letter} is the best`),
  );
  find("best").classList.remove("lacking");
  fill(recallDraft() ?? question.answer);
  showProgress();
  find("previous").disabled = index === 0;
  show("question");
  window.scrollTo(0, 0);
  find("caption").focus({ preventScroll: true });
  milliseconds = 0;
  lookedSince = document.hidden ? null : performance.now();
  for (const picture of asked.questions[index + 1]?.pictures ?? []) new Image().src = `pictures/${picture}.png`;
}

function showProgress() {
  const total = asked.questions.length;
  const done = asked.questions.filter((question) => question.answer).length;
  find("progress").hidden = false;
  find("bar").max = total;
  find("bar").value = done;
  find("count").textContent = done === total ? `All ${total} answered` : `${index + 1} of ${total}, ${done} answered`;
}

function showDone() {
  const total = asked.questions.length;
  showProgress();
  find("done-text").textContent =
    total === 1 ? "Your answer is kept. You may close this page." : `All ${total} answers are kept. You may close this page.`;
  show("done");
  find("done-heading").focus();
}

function showWelcome() {
  const total = asked.questions.length;
  find("how-many").textContent = total === 1 ? "one question" : `${total} questions`;
  find("progress").hidden = true;
  show("welcome");
  find("start").focus();
}

// What the rater chose.

const groups = () => [...find("form").querySelectorAll(".group")];
const chosen = (group) => group.querySelector("input:checked");
const cards = () => [...find("cards").children];

function fill(given) {
  for (const each of cards()) {
    for (const group of each.querySelectorAll(".group")) {
      const score = given?.scores[each.dataset.picture]?.[group.dataset.scale];
      for (const input of group.querySelectorAll("input")) input.checked = input.value === String(score);
    }
  }
  const place = asked.questions[index].pictures.indexOf(given?.best);
  for (const input of find("best").querySelectorAll("input")) input.checked = input.value === LETTERS[place];
  markBest();
}

function gather() {
  const scores = {};
  for (const each of cards()) {
    scores[each.dataset.picture] = {};
    for (const group of each.querySelectorAll(".group")) {
      const input = chosen(group);
      if (input) scores[each.dataset.picture][group.dataset.scale] = Number(input.value);
    }
  }
  const best = chosen(find("best"));
  return { scores, best: best ? asked.questions[index].pictures[LETTERS.indexOf(best.value)] : null };
}

function markBest() {
  const best = chosen(find("best"))?.value;
  cards().forEach((each, place) => each.classList.toggle("best", LETTERS[place] === best));
}

function changed(group) {
  group.classList.remove("lacking");
  if (!groups().some((each) => each.classList.contains("lacking"))) complain(null);
  markBest();
  keep(draftName(), JSON.stringify(gather()));
}

function focusGroup(group) {
  (chosen(group) ?? group.querySelector("input")).focus({ preventScroll: true });
  group.scrollIntoView({ block: "nearest" });
}

// From question to question.

async function finishQuestion() {
  if (isSending) return;
  const lacking = groups().filter((group) => !chosen(group));
  for (const group of groups()) group.classList.toggle("lacking", lacking.includes(group));
  if (lacking.length) {
    const { letter, scale } = lacking[0].dataset;
    const where = scale ? `${scale} of picture ${letter}` : "the best picture";
    complain(`Still to choose: ${where}${lacking.length > 1 ? `, and ${lacking.length - 1} more` : ""}.`);
    focusGroup(lacking[0]);
    return;
  }
  const question = asked.questions[index];
  const given = gather();
  isSending = find("next").disabled = true;
  try {
    const seconds = Math.round(lookedFor() / 100) / 10;
    await send({ rater, question: question.number, seconds, ...given });
  } catch (error) {
    const why = error instanceof TypeError ? "the server does not answer" : error.message;
    complain(`This answer is not kept yet (${why}). Press Next to try again.`);
    return;
  } finally {
    isSending = find("next").disabled = false;
    find("next").focus({ preventScroll: true });
  }
  keep(draftName(), null);
  question.answer = given;
  find("status").textContent = "Your answer is kept.";
  if (index + 1 < asked.questions.length) showQuestion(index + 1);
  else showNextOpen();
}

function showNextOpen() {
  const open = asked.questions.findIndex((question) => !question.answer);
  if (open >= 0) showQuestion(open);
  else showDone();
}

function lookedFor() {
  return milliseconds + (lookedSince === null ? 0 : performance.now() - lookedSince);
}

document.addEventListener("visibilitychange", () => {
  milliseconds = lookedFor();
  lookedSince = document.hidden ? null : performance.now();
});

// Keys count within the question only, so that they cannot be in the way of anything else.

find("question").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
  if (/^[0-9]$/.test(event.key)) {
    const all = groups();
    const group = event.target.closest(".group") ?? all.find((each) => !chosen(each));
    const wanted = event.key === "0" ? "10" : event.key;
    const input = group && [...group.querySelectorAll("input")].find((each) => each.value === wanted);
    if (!input) return;
    event.preventDefault();
    input.checked = true;
    changed(group);
    focusGroup(all[all.indexOf(group) + 1]);
  } else if (event.key.length === 1 && LETTERS.includes(event.key.toUpperCase())) {
    const wanted = event.key.toUpperCase();
    const input = [...find("best").querySelectorAll("input")].find((each) => each.value === wanted);
    if (!input) return;
    event.preventDefault();
    input.checked = true;
    changed(find("best"));
    const open = groups().find((group) => !chosen(group));
    if (open) focusGroup(open);
    else find("next").focus();
  } else if (event.key === "Enter" && event.target === find("caption")) {
    finishQuestion();
  }
});

find("form").addEventListener("change", (event) => changed(event.target.closest(".group")));
find("form").addEventListener("submit", (event) => {
  event.preventDefault();
  finishQuestion();
});
find("previous").addEventListener("click", () => showQuestion(index - 1));
find("start").addEventListener("click", showNextOpen);
find("look-again").addEventListener("click", () => showQuestion(0));
find("another").addEventListener("click", () => {
  rater = newRater();
  keep(raterName(), rater);
  history.replaceState(null, "", location.pathname);
  begin();
});

async function begin() {
  try {
    asked = await load();
  } catch (error) {
    const why = error instanceof TypeError ? "the server does not answer" : error.message;
    complain(`The questions cannot be had (${why}). Reload this page to try again.`);
    return;
  }
  document.title = find("title").textContent = asked.title;
  if (asked.questions.some((question) => question.answer)) showNextOpen();
  else showWelcome();
}

const named = new URLSearchParams(location.search).get("rater") ?? recall(raterName());
rater = named !== null && RATER.test(named) ? named : newRater();
keep(raterName(), rater);
begin();
