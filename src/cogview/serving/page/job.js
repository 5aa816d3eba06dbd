// Jobs and their progress.

import * as api from './api.js';
import { pause } from './dom.js';

const OVER = new Set(['done', 'refused', 'failed', 'cancelled']);
const MAX_FOLLOWED = 3; // a browser opens six connections to a server, and others are needed too
const [FIRST_WAIT, LONGEST_WAIT] = [500, 10_000];

const jobsById = new Map();
const queue = [];
let numFollowed = 0;

/** A job. Dispatches "change" events whose detail is the type of the server's event. */
export class Job extends EventTarget {
  previews = new Map();
  queued = null;
  isConnected = true;
  isGone = false;

  constructor(shown) {
    super();
    this.take(shown);
  }

  take(shown) {
    Object.assign(this, { state: 'waiting', message: '', accepted: {} }, shown);
    this.pictures = [...shown.pictures];
  }

  get isOver() {
    return this.isGone || OVER.has(this.state);
  }

  get isRanked() {
    return this.candidates > this.n;
  }

  /** Return the drawn share of all candidates. */
  get share() {
    if (this.pictures.length >= this.n) return 1;
    let sum = this.isRanked ? 0 : this.pictures.length;
    for (const { share } of this.previews.values()) sum += share;
    return Math.min(sum / this.candidates, 1);
  }

  /** Return the seeds of its tiles; if ranked, finished pictures come first. */
  get seeds() {
    const all = Array.from({ length: this.candidates }, (_, index) => this.seed + index);
    const done = this.pictures.map((picture) => picture.seed);
    if (this.isOver) return done;
    return this.isRanked ? [...done, ...all.filter((seed) => !done.includes(seed))] : all;
  }

  picture(seed) {
    return this.pictures.find((picture) => picture.seed === seed);
  }

  handleEvent(event) {
    if (event.type === 'accepted') this.accepted = event;
    else if (event.type === 'queued') this.queued = event;
    else if (event.type === 'preview') {
      this.state = 'drawing';
      this.queued = null;
      if (!this.picture(event.seed)) this.previews.set(event.seed, { share: event.share, image: event.image });
    } else if (event.type === 'picture') {
      this.queued = null;
      this.state = 'drawing';
      this.previews.delete(event.seed);
      this.pictures = [...this.pictures.filter((picture) => picture.place !== event.place), event];
      this.pictures.sort((one, other) => one.place - other.place);
    } else if (OVER.has(event.type)) {
      this.state = event.type;
      this.message = event.message;
      this.previews.clear();
    }
    this.changed(event.type);
  }

  changed(detail) {
    this.dispatchEvent(new CustomEvent('change', { detail }));
  }

  connected(isConnected) {
    if (isConnected === this.isConnected) return;
    this.isConnected = isConnected;
    this.changed('connection');
  }
}

/** Return the job of a server's response, and follow its events until it is over. */
export function jobOf(shown) {
  let job = jobsById.get(shown.id);
  if (!job) {
    job = new Job(shown);
    jobsById.set(shown.id, job);
    if (!job.isOver) follow(job);
  } else if (job.isOver) {
    job.take(shown);
  }
  return job;
}

/** Forget a job that was deleted. */
export function forget(job) {
  job.isGone = true;
  jobsById.delete(job.id);
  job.changed('gone');
}

async function follow(job) {
  if (numFollowed >= MAX_FOLLOWED) {
    queue.push(job);
    return;
  }
  numFollowed += 1;
  try {
    await read(job);
  } finally {
    numFollowed -= 1;
    const next = queue.shift();
    if (next) follow(next);
  }
}

/** Read a job's events, and reconnect with exponential backoff. */
async function read(job) {
  let last = null;
  let wait = FIRST_WAIT;
  while (!job.isOver) {
    try {
      for await (const { id, event } of api.events(job.id, last)) {
        last = id ?? last;
        wait = FIRST_WAIT;
        job.connected(true);
        job.handleEvent(event);
        if (job.isOver) return;
      }
    } catch (error) {
      if (!(error instanceof api.ApiError)) throw error;
      if (error.status === 404) {
        forget(job);
        return;
      }
    }
    if (job.isOver) return;
    job.connected(false);
    await pause(wait);
    wait = Math.min(wait * 2, LONGEST_WAIT);
  }
}
